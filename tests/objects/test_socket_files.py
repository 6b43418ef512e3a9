"""Descriptors of the files of unix sockets (O_PATH): of the socket's file as it is bound anew, or refused by name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine

pytestmark = pytest.mark.root

_SOCKET = 100
_PROGRAM = """
import os, signal, socket, sys
path, place = sys.argv[2], int(sys.argv[3])
def bound():
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(5)
    return s
first = bound()
opened = os.open(path, os.O_PATH)
second = bound() if {rebind} and not os.unlink(path) else None
os.dup2(opened, place)
os.dup2(first.fileno(), {socket})
first.close()
os.close(opened)
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""


@contextmanager
def _running(path: Path, place: int, *, rebind: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(rebind=rebind, socket=_SOCKET), str(writer), str(path), str(place)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer,),
        start_new_session=True,
    )
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x", "the program did not come up"
        yield process
    finally:
        os.close(reader)
        process.kill()
        process.wait()


@pytest.mark.parametrize("place", [_SOCKET - 1, _SOCKET + 1], ids=["before", "behind"])
def test_it_is_of_the_file_bound_anew(place: int, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with _running(path, place) as target:
        engine.dump(target.pid, tmp_path)
    pid = engine.restore(tmp_path)
    try:
        assert os.path.samestat(os.stat(f"/proc/{pid}/fd/{place}"), path.stat())
    finally:
        os.kill(pid, 9)


def test_one_that_lost_its_name_is_refused_before_the_freeze(tmp_path: Path) -> None:
    with _running(tmp_path / "socket", _SOCKET + 1, rebind=True) as target:
        with pytest.raises(engine.EngineError) as caught:
            engine.dump(target.pid, tmp_path)
        assert "the deleted file of a socket cannot be carried" in caught.value.log
        assert "dump: stop" not in caught.value.log
        assert target.poll() is None
