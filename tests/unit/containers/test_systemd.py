"""Units of systemd by their names, with a systemctl that says what we want."""

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.cli.commands import check, checkpoint
from torpor.containers import foreseen, names, systemd


def _systemd_says(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "systemctl"
    command.write_text(f"""#!/bin/sh
        case "$*" in
            *SystemState*) echo running ;;
            *web.socket*) printf 'Id=web.timer\\nActiveState=inactive\\n\\nId=web.socket\\nActiveState=active\\n' ;;
            show*) cat <<END
{text}
END
        esac""")
    command.chmod(0o755)
    monkeypatch.setenv("TORPOR_SYSTEMCTL", str(command))
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))


def test_a_service_is_its_main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _systemd_says("LoadState=loaded\nActiveState=active\nMainPID=77\nRestart=no", tmp_path, monkeypatch)
    target = names.resolve("web.service")
    assert (target.label, target.pid, target.container, target.job) == ("web.service", 77, None, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("LoadState=not-found\nActiveState=inactive\nMainPID=0", "there is no unit web.service"),
        ("LoadState=loaded\nActiveState=inactive\nMainPID=0", r"no main process \(inactive\)"),
        ("", "there is no unit"),
    ],
)
def test_what_does_not_run(text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _systemd_says(text, tmp_path, monkeypatch)
    with pytest.raises(TorporError, match=told):
        names.resolve("web.service")


def test_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    monkeypatch.setenv("TORPOR_SYSTEMCTL", "no-such-command")
    with pytest.raises(EngineError, match="there is no systemctl"):
        names.resolve("web.service")


def test_one_that_would_be_started_anew_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _systemd_says("LoadState=loaded\nActiveState=active\nMainPID=77\nRestart=always", tmp_path, monkeypatch)
    parser = argparse.ArgumentParser()
    checkpoint.add_arguments(parser)
    with pytest.raises(UsageError, match=r"starts it anew when it has ended \(Restart=always\)"):
        checkpoint.main(parser.parse_args(["web.service", "-o", str(tmp_path / "out")]))


def test_one_that_others_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "LoadState=loaded\nActiveState=active\nMainPID=77\nRestart=no\nTriggeredBy=web.timer web.socket"
    _systemd_says(text, tmp_path, monkeypatch)
    unit = names.resolve("web.service").unit
    assert unit is not None
    (problem,) = unit.problems()
    assert "web.socket holds its sockets, and starts it anew" in str(problem)
    assert "systemctl stop web.socket" in problem.describe()


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[int]]]:
    """A directory that stands for a control group with two processes of the same parent, which is not in it."""
    monkeypatch.setattr(systemd, "_GROUPS", (str(tmp_path / "v2"),))
    group = tmp_path / "v2/lab"
    (group / "below").mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as one, subprocess.Popen(["sleep", "1000"]) as other:
        (group / "cgroup.procs").write_text(f"{one.pid}\n")
        (group / "below/cgroup.procs").write_text(f"{other.pid}\n")
        yield group, [one.pid, other.pid]
        one.kill()
        other.kill()


def test_what_is_beside_the_main_process_is_lost(
    group: tuple[Path, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (main, other) = group
    text = f"LoadState=loaded\nMainPID={main}\nRestart=on-failure\nControlGroup=/lab\nRuntimeDirectory=web\n"
    _systemd_says(text, tmp_path, monkeypatch)
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    assert check.main(parser.parse_args(["web.service"])) == 1
    told = capsys.readouterr().out
    assert "in the way: web.service: systemd starts it anew when it has ended (Restart=on-failure)" in told
    assert f"will be lost: sleep (pid {other}): in web.service, but not below its main process" in told
    assert "will be lost: /run/web: systemd removes it when web.service has ended" in told
    _systemd_says(text + "RuntimeDirectoryPreserve=yes", tmp_path, monkeypatch)
    check.main(parser.parse_args(["web.service"]))
    assert "/run/web" not in capsys.readouterr().out


def test_a_scope_is_the_process_that_all_others_are_below(
    group: tuple[Path, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, (one, other) = group
    _systemd_says("LoadState=loaded\nActiveState=active\nControlGroup=/lab", tmp_path, monkeypatch)
    with pytest.raises(TorporError, match=rf"several processes .* sleep \(pid {one}\), sleep \(pid {other}\)"):
        names.resolve("lab.scope")
    (directory / "below/cgroup.procs").write_text("")
    assert names.resolve("lab.scope").pid == one
    _systemd_says("LoadState=loaded\nActiveState=active\nMainPID=0\nControlGroup=/lab", tmp_path, monkeypatch)
    assert names.resolve("lab.service").pid == one
    # With what it is below in there too, it is below that.
    (directory / "below/cgroup.procs").write_text(f"{os.getpid()}\n{other}\n")
    assert names.resolve("lab.scope").pid == os.getpid()
    for each in (directory, directory / "below"):
        (each / "cgroup.procs").write_text("")
    with pytest.raises(TorporError, match=r"no main process \(active\)"):
        names.resolve("lab.scope")


def test_a_container_that_a_unit_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "is_here", lambda: True)
    units = "Id=other.service\nMainPID=0\nRestart=always\n\nId=web.service\nMainPID=78\nRestart=always"
    _systemd_says(units, tmp_path, monkeypatch)
    told = {"State": {"Pid": 79, "ConmonPid": 78}}
    with pytest.raises(UsageError, match=r"web.service: systemd starts it anew .* \(Restart=always\)"):
        foreseen.check("web", told, to_archive=True, runs_on=False, is_removed=False)
    foreseen.check("web", told, to_archive=True, runs_on=True, is_removed=False)
    foreseen.check("web", {"State": {"Pid": 79, "ConmonPid": 80}}, to_archive=True, runs_on=False, is_removed=False)
