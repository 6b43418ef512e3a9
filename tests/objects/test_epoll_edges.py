"""Edge-triggered epolls: what becomes ready while its program is being restored is told to it.

A FIFO gets its data between dump and restore.  For sockets a client tries all the time, so that it comes in between the
moment at which the socket can be reached and the end of the restore.  The ports are in a network of the test's own, and
none that the kernel chooses: a client would be given the very one that it looks for, and reach itself.
"""

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.rounds import rounds

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: Below those that the kernel chooses; another one each time, for who had the last may still be dying.
_PORTS = itertools.count(2000)

# Answers each that comes by a byte in a file; arguments: how to make the socket, what to do with it, the file.
_SERVER = """
import os, select, socket, sys
make, take, log, ready, flags = sys.argv[1:]
names = {"os": os, "socket": socket}
exec(make, names)
names["s"].setblocking(False) if hasattr(names["s"], "setblocking") else None
epoll = select.epoll()
epoll.register(names["s"], select.EPOLLIN | select.EPOLLET | eval(flags))
top = epoll
if "nested" in make:
    top = select.epoll()
    top.register(epoll, select.EPOLLIN | select.EPOLLET)
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(int(ready), b"x")
os.close(int(ready))
while True:
    top.poll()
    epoll.poll(0)
    while True:
        try:
            got = eval(take, names)
        except BlockingIOError:
            break
        os.write(log, b"x")
"""

_FIFO = "s = os.open('{path}', os.O_RDWR | os.O_NONBLOCK)"
_TCP = (
    "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', {port})); "
    "s.listen(16)"
)
_UNIX = "s = socket.socket(socket.AF_UNIX); s.bind('{path}'); s.listen(16)"
_DATAGRAMS = "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('{path}')"
_UDP = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', {port}))"


def _to_tcp(path: str, port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 0.5).close()


def _to_unix(path: str, port: int) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def _to_datagrams(path: str, port: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(path)
        client.send(b"x")


def _to_udp(path: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"x")
        # A refusal comes at once, on a busy machine a moment later; but at most 1,000 a second (icmp_msgs_per_sec).
        client.settimeout(0.5)
        threading.Event().wait(0.003)
        try:
            client.recv(1)
        except TimeoutError:
            return  # nobody has refused it


_REACHED: dict[str, tuple[str, str, Callable[[str, int], None]]] = {
    "tcp": (_TCP, "s.accept()", _to_tcp),
    "nested": (_TCP + "; nested = 1", "s.accept()", _to_tcp),
    "unix": (_UNIX, "s.accept()", _to_unix),
    "datagrams": (_DATAGRAMS, "s.recv(10)", _to_datagrams),
    "udp": (_UDP, "s.recv(10)", _to_udp),
}


@contextmanager
def _server(directory: Path, make: str, take: str, flags: str = "0") -> Iterator[tuple[int, Path]]:
    reader, writer = os.pipe()
    log = directory / "log"
    with open("/dev/null", "r+b") as null:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, make, take, str(log), str(writer), flags],
            stdin=null, stdout=null, stderr=null, pass_fds=(writer,), start_new_session=True,
        )  # fmt: skip
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x", "the server did not come up"
        yield process.pid, log
    finally:
        os.close(reader)
        process.kill()
        process.wait()


def _wait_answered(log: Path, n_before: int) -> bool:
    """Whether the server has noticed something."""
    deadline = threading.Event()
    for _ in range(int(time_limit_s(10) * 50)):
        if log.stat().st_size > n_before:
            return True
        deadline.wait(0.02)
    return False


@pytest.mark.parametrize("flags", ["0", "select.EPOLLEXCLUSIVE"])
def test_data_that_comes_in_between(flags: str) -> None:
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        path = directory / "fifo"
        os.mkfifo(path)
        other = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        (directory / "images").mkdir()
        try:
            with _server(directory, _FIFO.format(path=path), "os.read(s, 10)", flags) as (pid, log):
                engine.dump(pid, directory / "images")
            os.write(other, b"x")
            pid = engine.restore(directory / "images")
            try:
                assert _wait_answered(log, 0)
            finally:
                os.kill(pid, 9)
        finally:
            os.close(other)


@pytest.mark.parametrize("how", _REACHED)
def test_whoever_comes_during_the_restore(how: str) -> None:
    make, take, reach = _REACHED[how]
    for _ in range(rounds(2, 40)):
        with tempfile.TemporaryDirectory() as text:
            directory = Path(text)
            path, port = str(directory / "socket"), next(_PORTS)
            (directory / "images").mkdir()
            with _server(directory, make.format(path=path, port=port), take) as (pid, log):
                engine.dump(pid, directory / "images")
            reached = threading.Event()
            client = threading.Thread(target=_try_until_reached, args=(reach, path, port, reached))
            client.start()
            pid = -1
            try:
                pid = engine.restore(directory / "images")
                client.join(time_limit_s(10))
                assert not client.is_alive()
                assert _wait_answered(log, 0), "it was never told"
            finally:
                reached.set()
                client.join()
                if pid > 0:
                    os.kill(pid, 9)


def _try_until_reached(reach: Callable[[str, int], None], path: str, port: int, reached: threading.Event) -> None:
    while not reached.is_set():
        try:
            reach(path, port)
        except OSError:
            continue
        return
