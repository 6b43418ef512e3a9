"""An ordinary user with CAP_CHECKPOINT_RESTORE dumps and restores a process of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.skips import missing

pytestmark = pytest.mark.root
_USER = 12345
# To read the program and the engine wherever they lie; what is tested is the other one.
_CAPS = "+checkpoint_restore,+dac_read_search"


def _as_user(*words: str) -> list[str]:
    if shutil.which("setpriv") is None:
        missing("the command setpriv (Debian: util-linux)")
    return ["setpriv", "--reuid", str(_USER), "--regid", str(_USER), "--clear-groups", *words]


@pytest.fixture
def images() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="torpor-user-"))
    os.chown(directory, _USER, _USER)
    yield directory
    shutil.rmtree(directory)


def _criu(*words: str, caps: str = _CAPS) -> "subprocess.CompletedProcess[str]":
    engine = [sys.executable, "-m", "torpor.cli.criu.main", *words]
    line = _as_user("--inh-caps", caps, "--ambient-caps", caps, *engine)
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd="/", timeout=time_limit_s(60))


def test_a_process_of_ones_own(images: Path) -> None:
    become_subreaper()
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        _as_user("sleep", "1000"), stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/"
    )
    try:
        with open(f"/proc/{process.pid}/comm", encoding="ascii") as stream:
            while stream.read() != "sleep\n":  # setpriv has not executed it yet
                stream.seek(0)
        place = ("--unprivileged", "-D", str(images), "-v4")
        done = _criu("dump", "-t", str(process.pid), "-o", "dump.log", *place)
        assert done.returncode == 0, (images / "dump.log").read_text()
    finally:
        process.kill()
        process.wait()
    done = _criu("restore", "-d", "--pidfile", "pid", "-o", "restore.log", *place)
    assert done.returncode == 0, (images / "restore.log").read_text()
    with ProcessWatch(process.pid) as restored:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        assert f"Uid:\t{_USER}\t" in status and "CapEff:\t0000000000000000" in status
        restored.signal(signal.SIGKILL)
        assert restored.wait_ended(time_limit_s(10))
        restored.reap()


def test_a_process_of_somebody_else_is_refused(images: Path) -> None:
    done = _criu("dump", "--unprivileged", "-t", str(os.getpid()), "-D", str(images), "-o", "dump.log")
    assert done.returncode != 0
    assert "Traceback" not in (images / "dump.log").read_text()


def test_who_may_nothing_is_told_what_is_lacking(images: Path) -> None:
    """A process of their own, and another's; then images that root has made of it."""
    null, caps = subprocess.DEVNULL, "+dac_read_search"
    place = ("--unprivileged", "-D", str(images), "-o", "log")
    become_subreaper()
    with subprocess.Popen(
        _as_user("sleep", "1000"), stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/"
    ) as process:
        try:
            for pid in (process.pid, os.getpid()):
                done = _criu("dump", "-t", str(pid), *place, caps=caps)
                assert done.returncode == 1
                assert "a checkpoint needs CAP_CHECKPOINT_RESTORE" in (images / "log").read_text()
            root = [sys.executable, "-m", "torpor.cli.criu.main", "dump", "-t", str(process.pid), "-D", str(images)]
            subprocess.run(root, check=True, timeout=time_limit_s(60))
        finally:
            process.kill()
    for path in images.iterdir():
        os.chown(path, _USER, _USER)
    done = _criu("restore", "-d", *place, caps=caps)
    assert done.returncode == 1
    assert "needs CAP_CHECKPOINT_RESTORE" in (images / "log").read_text()
