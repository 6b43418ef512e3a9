"""Descriptors of the files of unix sockets (O_PATH): of the socket's file as it is bound anew, or refused by name."""

import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.scripts import awaited

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


def _running(path: Path, place: int, *, rebind: bool = False) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return awaited(_PROGRAM.format(rebind=rebind, socket=_SOCKET), path, place)


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
