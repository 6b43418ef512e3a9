"""Pipes that lead out of the tree: `torpor` asks first; a restore gives them anew, or nobody is at their other end."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, become_subreaper, time_limit_s

pytestmark = pytest.mark.root
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]

# Writes to or reads from its pipe once it is told to, and says what came of it.
_PROGRAM = """
import os, signal, sys
ready, wake, output, act = int(sys.argv[1]), os.open(sys.argv[2], os.O_RDWR), sys.argv[3], sys.argv[4]
os.close(ready)
os.read(wake, 1)
try:
    said = repr(os.write(1, b"out")) if act == "write" else repr((os.read(0, 100), os.read(0, 100)))
except OSError as error:
    said = error.strerror
open(output, "w").write(said)
"""
_SAYS = {"write": "Broken pipe", "read": "(b'buffered', b'')"}


@contextmanager
def _program(act: str, directory: Path, more: Sequence[int] = ()) -> Iterator[tuple[int, int]]:
    """Its pid, and our end of its standard output or input."""
    become_subreaper()
    os.mkfifo(directory / "wake")
    ready, ours = os.pipe()
    reader, writer = os.pipe()
    theirs, end = (writer, reader) if act == "write" else (reader, writer)
    if act == "read":
        os.write(writer, b"buffered")
    words = [str(ours), str(directory / "wake"), str(directory / "output"), act]
    with open("/dev/null", "r+b") as null:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
            stdin=theirs if act == "read" else null, stdout=theirs if act == "write" else null, stderr=null,
            pass_fds=(ours, *more), start_new_session=True,
        )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert os.read(ready, 1) == b"", "the program did not come up"
    os.close(ready)
    try:
        yield process.pid, end
    finally:
        with suppress(OSError):
            os.close(end)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def _torpor(*words: object, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    line = [*TORPOR, *map(str, words)]
    return subprocess.run(
        line,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=pass_fds,
        timeout=time_limit_s(120),
        check=False,
    )


def _outcome(pid: int, directory: Path) -> str:
    watch = ProcessWatch(pid)
    (directory / "wake").write_bytes(b"x")
    assert watch.wait_ended(time_limit_s(10))
    watch.reap()
    watch.close()
    return (directory / "output").read_text()


@pytest.mark.parametrize("act", _SAYS)
def test_torpor_asks_and_goes_on_without(act: str, tmp_path: Path) -> None:
    with _program(act, tmp_path) as (pid, end):
        pipe = os.readlink(f"/proc/self/fd/{end}")
        for refused in (_torpor("checkpoint", pid, "-o", tmp_path / "nap"), _torpor("check", pid)):
            text = refused.stdout + refused.stderr
            assert refused.returncode == 1
            assert pipe in text and f"pid {os.getpid()} (" in text and "--external-pipes" in text
        os.kill(pid, 0)
        assert "nothing in the way" in _torpor("check", pid, "--external-pipes").stdout
        done = _torpor("checkpoint", pid, "-o", tmp_path / "nap", "--external-pipes")
        assert done.returncode == 0, done.stderr
        os.waitpid(pid, 0)
        done = _torpor("restore", tmp_path / "nap")
        assert done.returncode == 0 and "nobody is at its other end" in done.stderr
        assert _outcome(pid, tmp_path) == _SAYS[act]


def test_torpor_restore_takes_another_pipe(tmp_path: Path) -> None:
    with _program("write", tmp_path) as (pid, end):
        pipe = os.readlink(f"/proc/self/fd/{end}")
        assert _torpor("checkpoint", pid, "-o", tmp_path / "nap", "--external-pipes").returncode == 0
        os.waitpid(pid, 0)
        reader, writer = os.pipe()
        done = _torpor("restore", tmp_path / "nap", "--inherit-fd", f"fd[{writer}]:{pipe}", pass_fds=[writer])
        os.close(writer)
        assert done.returncode == 0, done.stderr
        assert _outcome(pid, tmp_path) == "3"
        assert os.read(reader, 100) == b"out"
        os.close(reader)
        assert _torpor("restore", tmp_path / "nap", "--inherit-fd", pipe).returncode != 0


@pytest.mark.parametrize("act", _SAYS)
def test_criu_makes_the_pipe_without_its_other_end(act: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with _program(act, tmp_path) as (pid, _):
        engine.dump(pid, tmp_path / "images")
        os.waitpid(pid, 0)
        assert engine.restore(tmp_path / "images") == pid
        assert _outcome(pid, tmp_path) == _SAYS[act]


def test_what_is_merely_shared_is_told(tmp_path: Path) -> None:
    counter = os.eventfd(0)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        _program("write", tmp_path, (listener.fileno(), counter)) as (pid, _),
    ):
        done = _torpor("checkpoint", pid, "-o", tmp_path / "nap", "--external-pipes", "--leave-running")
        assert done.returncode == 0, done.stderr
        refused = _torpor("check", pid)
    os.close(counter)
    for what in ("socket", "eventfd"):
        assert re.search(rf"fd \d+ of pid {pid} .*pid {os.getpid()} .* has the same {what}", refused.stderr)
