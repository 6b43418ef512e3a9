"""Errors that wait in sockets: a dump warns of them, and leaves them to a program that runs on."""

import os
import socket
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.scripts import awaited
from torpor.base.ids import Pid
from torpor.kernel.pidfd import getfd, open_pidfd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

_NUMBER = 100
_PROGRAM = """
import os, select, signal, socket, sys
def wait(s):
    poll = select.poll()
    poll.register(s, 0)
    poll.poll()
{body}
os.dup2(s.fileno(), 100)
s.close()
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""
_UDP = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
free.bind(("127.0.0.1", 0))
s.connect(free.getsockname())
free.close()
"""
_TCP = """
listener = socket.create_server(("127.0.0.1", 0))
s = socket.create_connection(listener.getsockname())
peer = listener.accept()[0]
"""
_WAITS = {
    "refused": _UDP + "s.send(b'x')\nwait(s)",
    "zero copy": _TCP + "s.setsockopt(1, 60, 1)\ns.send(b'x', 0x4000000)\npeer.recv(1)\nwait(s)",
}
_NONE = {"no datagram": _UDP, "no message": _TCP + "s.send(b'x')\npeer.recv(1)"}


def _running(body: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return awaited(_PROGRAM.format(body=body))


@pytest.mark.parametrize("how", [*_WAITS, *_NONE])
def test_it_is_told(how: str, tmp_path: Path) -> None:
    with _running({**_WAITS, **_NONE}[how]) as target:
        engine.dump(target.pid, tmp_path, options=["--tcp-established"])
    told = [line for line in (tmp_path / "dump.log").read_text().splitlines() if "an error that waits" in line]
    assert len(told) == (how in _WAITS)
    assert all("Warn" in line and f"fd {_NUMBER} " in line for line in told)
    os.kill(engine.restore(tmp_path, options=["--tcp-established"]), 9)


def test_it_stays_with_who_runs_on(tmp_path: Path) -> None:
    with _running(_WAITS["refused"]) as target:
        engine.dump(target.pid, tmp_path, leave_running=True)
        pidfd = open_pidfd(Pid(target.pid))
        try:
            with socket.socket(fileno=getfd(pidfd, _NUMBER)) as theirs:
                assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        finally:
            os.close(pidfd)
