"""Connections that wait to be accepted: a dump comes when there are none, and says so where they never end."""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from harness import engine
from harness.program import Program
from harness.rounds import rounds

pytestmark = pytest.mark.root

N_DUMPS = 5

_BUSY = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    peer.sendall(b"x")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    peer.close()
"""
_FICKLE = """
import socket
print("port", 0, flush=True)
while True:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as near:
            with listener.accept()[0] as far:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
"""
_DEAF = """
import signal, socket
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("port", listener.getsockname()[1], flush=True)
signal.sigwait([signal.SIGUSR1])
print("accepted", listener.accept()[1][1], flush=True)
"""


def _start(program: Program, text: str) -> int:
    program.start([sys.executable, "-c", f"import signal; signal.pthread_sigmask(0, [signal.SIGUSR1])\n{text}"])
    program.wait_log(r"port \d+\n")
    return int(program.log().split()[1])


def test_one_that_opens_and_closes_listeners(tmp_path: Path) -> None:
    """Those that it has at the moment of the dump count, not those that it had before."""
    with Program() as program:
        _start(program, _FICKLE)
        for _ in range(rounds(10, 200)):
            engine.dump(program.pid, tmp_path, leave_running=True, options=["--tcp-established"])


def test_a_busy_server(tmp_path: Path) -> None:
    """One that accepts and ends connections without a pause can be dumped at any time."""
    end = threading.Event()

    def talk(port: int) -> None:
        while not end.is_set():
            with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port)) as peer:
                peer.recv(10)

    with Program() as program:
        port = _start(program, _BUSY)
        thread = threading.Thread(target=talk, args=(port,))
        thread.start()
        try:
            for _ in range(N_DUMPS):
                engine.dump(program.pid, tmp_path, leave_running=True, options=["--tcp-established"])
        finally:
            end.set()
            thread.join()


def test_one_that_never_accepts(tmp_path: Path) -> None:
    with Program() as program:
        port = _start(program, _DEAF)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            with pytest.raises(engine.EngineError) as caught:
                engine.dump(program.pid, tmp_path, options=["--tcp-established"])
            assert "1 TCP connections wait to be accepted" in caught.value.log
            assert "--skip-in-flight" in caught.value.log
            engine.dump(program.pid, tmp_path, leave_running=True, options=["--skip-in-flight"])
            os.kill(program.pid, signal.SIGUSR1)
            program.wait_log(f"accepted {peer.getsockname()[1]}\n")
