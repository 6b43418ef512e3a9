"""Services of systemd by their names, with a systemctl that says what we want."""

import argparse
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, TorporError, UsageError
from torpor.cli.commands import checkpoint
from torpor.containers import names


def _systemd_says(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "systemctl"
    command.write_text(f'#!/bin/sh\n[ "$1" = show ] && cat <<END\n{text}\nEND\n')
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
