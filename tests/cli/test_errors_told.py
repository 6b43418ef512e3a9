"""What commands say when something is wrong: the cause, a place, what was probably meant; a bug is called one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import engine
from harness.edited import forget_manifest
from harness.events import become_subreaper
from torpor.base import errors
from torpor.base.ids import Pid
from torpor.cli import torpor
from torpor.cli.criu import main as criu
from torpor.engine.dump import deaths
from torpor.engine.restore import phases, run
from torpor.engine.restore.phases import RESTORE, Phase
from torpor.engine.restore.session import RestoreSession
from torpor.images.errors import ImageError

pytestmark = pytest.mark.root
_JARGON = ("puppet", "conductor", "parasite", "stub", "guardian", "caretaker")


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """Of a process that was left running, and so cannot be restored: its pid is taken."""
    become_subreaper()
    null = subprocess.DEVNULL
    process = subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    (tmp_path / "nap").mkdir()
    engine.dump(process.pid, tmp_path / "nap", leave_running=True)
    yield tmp_path / "nap"
    process.kill()
    process.wait()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert torpor.main(words) != 0
    said = capsys.readouterr().err
    assert said.startswith("torpor: ") and said.count("\n") == 1, said
    return said


def test_phases_have_no_names_of_our_workshop() -> None:
    assert not [phase.name for phase in RESTORE if any(word in phase.name for word in _JARGON)]


def test_an_error_about_an_image_names_its_directory(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "pstree.img").write_bytes(b"damaged")
    (images / "torpor.manifest").unlink(missing_ok=True)
    assert str(images) in told(capsys, "restore", str(images))


def _failing(phase: Phase, error: Exception) -> Phase:
    def run(session: RestoreSession) -> None:
        raise error

    return Phase(phase.name, run, phase.why, by_images=phase.by_images)


def _restore(monkeypatch: pytest.MonkeyPatch, images: Path, at: str, error: Exception) -> BaseException:
    monkeypatch.setattr(run, "RESTORE", tuple(_failing(p, error) if p.name == at else p for p in phases.RESTORE[:3]))
    with pytest.raises(Exception) as caught:
        run.restore(images)
    return caught.value


def test_a_bug_is_not_put_down_to_the_images(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torpor has written them, by their manifest, they are not to blame; without it, they may be."""
    found = _restore(monkeypatch, images, "processor", KeyError("x"))
    assert isinstance(found, KeyError) and "while restoring: processor" in found.__notes__
    forget_manifest(images)
    found = _restore(monkeypatch, images, "processor", KeyError("x"))
    assert isinstance(found, ImageError) and "contradict themselves" in str(found)


@pytest.mark.parametrize(
    ("error", "kind"), [(MemoryError(), errors.TorporError), (OSError(24, "Too many open files"), errors.RestoreError)]
)
def test_what_is_lacking_is_said(
    images: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    found = _restore(monkeypatch, images, "processor", error)
    assert type(found) is kind and "contradict" not in str(found) and "Errno" not in str(found)


def test_a_bug_is_called_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> int:
        raise KeyError("no such thing")

    monkeypatch.setattr("torpor.cli.commands.ps.main", fail)
    assert "torpor: bug: KeyError: 'no such thing'" in told(capsys, "ps")
    assert criu.report(KeyError("x")) == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["chekpoint", "1"], "did you mean checkpoint"),
        (["checkpoint", "1", "-o", "x", "--leave-runing"], "did you mean --leave-running"),
        (["kill"], "torpor kill --help"),
    ],
)
def test_what_was_probably_meant(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert meant in told(capsys, *words)


def test_names_of_jobs_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    for name in ("PODMAN", "DOCKER", "CTR", "RUNC", "CRUN", "LXC_CHECKPOINT"):
        monkeypatch.setenv(f"TORPOR_{name}", "/nowhere")
    assert torpor.main(["run", "--name", "webserver", "-d", "--", "sleep", "1000"]) == 0
    try:
        assert "did you mean webserver?" in told(capsys, "checkpoint", "webservr")
        assert "did you mean webserver?" in told(capsys, "logs", "web-server")
    finally:
        assert torpor.main(["kill", "--remove", "webserver"]) == 0


@pytest.mark.parametrize("words", [["-v", "ps"], ["ps", "-v"], ["ps", "--verbose", "-a"]])
def test_verbose_may_stand_anywhere(words: list[str]) -> None:
    assert torpor.main(words) == 0


def test_criu_says_what_was_meant() -> None:
    for words, meant in ((["dunp"], "did you mean dump?"), (["dump", "--shelljob"], "did you mean --shell-job")):
        line = [sys.executable, "-m", "torpor.cli.criu.main", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and meant in done.stderr


def test_a_process_that_is_killed_meanwhile_is_told_as_that(images: Path) -> None:
    """Whatever fails then: here, a call on a descriptor of it."""
    from torpor.engine.dump.preflight import _iter_tree

    null = subprocess.DEVNULL
    with subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null) as process:
        (met,) = _iter_tree([Pid(process.pid)], {})
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(errors.TargetGoneError, match=f"pid {process.pid} .* was killed while"):
            with deaths.told([met]):
                raise errors.KernelError("kcmp", 9)
        with pytest.raises(ImageError):
            with deaths.told([met]):
                raise ImageError("something else")
        assert met.pidfd is not None
        met.pidfd.close()
