"""Sockets that cannot be carried are named before anything happens to their process; --ext-unix-sk and --tcp-close."""

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.scripts import awaited

pytestmark = pytest.mark.root

_PROGRAM = """
import os, signal, socket, sys
{body}
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""


def _running(body: str) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    return awaited(_PROGRAM.format(body=body))


def _refusal(body: str, *options: str) -> str:
    with _running(body) as process, tempfile.TemporaryDirectory() as directory:
        with pytest.raises(engine.EngineError) as caught:
            engine.dump(process.pid, Path(directory), options=options)
        assert process.poll() is None, "a refused dump ended the process"
        return caught.value.log


@pytest.fixture
def outside() -> Iterator[tuple[str, socket.socket]]:
    """A datagram socket of another process than the dumped one."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        path = f"{directory}/outside"
        end.bind(path)
        end.settimeout(time_limit_s(10))
        yield path, end


def test_tcp_connection() -> None:
    body = (
        "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b, _ = l.accept()"
    )
    log = _refusal(body)
    assert re.search(r"fd \d+ of pid \d+ \(python.*\): a TCP connection to port \d+", log)
    assert "--tcp-close" in log


def test_waiting_tcp_connection() -> None:
    body = "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname())"
    assert "connections wait to be accepted" in _refusal(body) or "a TCP connection" in _refusal(body)


def test_unix_peer_outside(outside: tuple[str, socket.socket]) -> None:
    log = _refusal(f"s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect({outside[0]!r})")
    assert outside[0] in log
    assert "--ext-unix-sk" in log


def test_family_without_support() -> None:
    assert "family 40 (vsock)" in _refusal("s = socket.socket(40, socket.SOCK_STREAM)")


def test_data_in_a_waiting_unix_connection() -> None:
    body = (
        "l = socket.socket(socket.AF_UNIX); l.bind(''); l.listen(3)\n"
        "c = socket.socket(socket.AF_UNIX); c.connect(l.getsockname()); c.send(b'x')"
    )
    assert "not accepted yet" in _refusal(body)


def test_unix_peer_outside_is_found_again(outside: tuple[str, socket.socket]) -> None:
    path, end = outside
    body = (
        f"s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect({path!r})\n"
        "signal.signal(signal.SIGUSR1, lambda *_: s.send(b'back'))"
    )
    with _running(body) as process, tempfile.TemporaryDirectory() as directory:
        engine.dump(process.pid, Path(directory), options=["--ext-unix-sk"])
        process.wait()
        pid = engine.restore(Path(directory), options=["--ext-unix-sk"])
        try:
            os.kill(pid, 10)
            assert end.recv(100) == b"back"
        finally:
            os.kill(pid, 9)


_EBPF = """
import ctypes, struct
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, -1) + struct.pack("<BBhi", 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b"GPL")
words = struct.pack("IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(license)).ljust(72, bytes(1))
program = libc.syscall(321, 5, ctypes.create_string_buffer(words, 72), 72)
made = socket.socket({family}, socket.SOCK_DGRAM)
if program >= 0:
    made.setsockopt(1, 50, struct.pack("i", program))
    os.close(program)
"""


@pytest.mark.parametrize("family", ["socket.AF_INET", "socket.AF_UNIX", "socket.AF_PACKET", "socket.AF_NETLINK"])
def test_an_ebpf_filter_is_refused(family: str) -> None:
    assert "eBPF program as its filter" in _refusal(_EBPF.format(family=family))


_MD5 = """
import struct
peer = struct.pack("HH4s120x", 2, 0, socket.inet_aton("127.0.0.1"))
key = peer + struct.pack("BBHi80s", 0, 0, 3, 0, b"key")
made = socket.create_server(("127.0.0.1", 0))
made.setsockopt(6, 14, key)
"""


def test_signatures_are_refused() -> None:
    """A listener's keys, which its connections have as well."""
    assert re.search(r"fd \d+ of pid .* signs what it sends .TCP MD5.", _refusal(_MD5))
