"""TCP connections to a peer outside of the tree: queues, and half-closed ones stay what they are."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.events import time_limit_s
from harness.program import Program

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

#: In the tree: one connection is accepted, "before" is done, and after SIGUSR1 "after"; it logs the result.
_SERVER = """
import os, signal, socket, sys
family, address = int(sys.argv[1]), sys.argv[2]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
listener = socket.socket(family)
listener.bind((address, 0))
listener.listen()
print("port", listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
listener.close()
peer.settimeout(20)
def read(n=0):
    data = b""
    while not n or len(data) < n:
        piece = peer.recv(n - len(data) if n else 1000)
        if not piece:
            break
        data += piece
    return data
def wait_state(number):
    while peer.getsockopt(socket.IPPROTO_TCP, 11, 104)[0] != number:
        signal.sigtimedwait([signal.SIGUSR2], 0.01)
{before}
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
{after}
print("result", result, flush=True)
"""
FAMILIES = {
    "v4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "v6": (socket.AF_INET6, "::1", "::1"),
    "mapped": (socket.AF_INET6, "::", "127.0.0.1"),
}


class _Server(Program):
    dump_options = ("--tcp-established",)
    restore_options = ("--tcp-established",)

    def connect(self, family: str, before: str, after: str) -> socket.socket:
        """Start the server; our end of the connection to it."""
        number, bound, target = FAMILIES[family]
        program = _SERVER.format(before=before, after=after)
        self.start([sys.executable, "-c", program, str(int(number)), bound])
        self.wait_log(r"port \d+\n")
        client = socket.create_connection((target, int(self.log().split()[1])))
        client.settimeout(time_limit_s(20))
        return client

    def result(self) -> str:
        """What "after" found."""
        os.kill(self.pid, signal.SIGUSR1)
        self.wait_log(r"result .*\n")
        return self.log().partition("result ")[2].strip()


@contextmanager
def _connected(family: str, before: str, after: str) -> Iterator[tuple[_Server, socket.socket]]:
    with _Server() as server, server.connect(family, before, after) as client:
        yield server, client


families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_what_waits_in_both_queues(family: str) -> None:
    # Nobody reads: what the server sends fills our queue, then its own.
    before = (
        "peer.setblocking(False)\nn = 0\ntry:\n  while True: n += peer.send(b'abcdefgh' * 1000)\n"
        "except BlockingIOError: pass\npeer.settimeout(20)"
    )
    after = "result = (n, read(7))\npeer.shutdown(socket.SHUT_WR)"
    with _connected(family, before, after) as (server, client):
        client.sendall(b"waiting")
        server.wait_log("ready")
        server.sleep_and_wake()
        got = b""
        os.kill(server.pid, signal.SIGUSR1)
        while piece := client.recv(1 << 20):
            got += piece
        server.wait_log("result")
        n = len(got)
        assert server.log().partition("result ")[2].strip() == f"({n}, b'waiting')"
        assert got == (b"abcdefgh" * (n // 8 + 1))[:n]


@families
def test_peer_has_shut_down(family: str) -> None:
    """CLOSE_WAIT: its last words and the end are read, and it is still listened to."""
    with _connected(family, "wait_state(8)", "result = read()\npeer.sendall(b'still here')") as (server, client):
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        server.wait_log("ready")
        server.sleep_and_wake()
        assert server.result() == "b'last words'"
        assert client.recv(100) == b"still here"


@families
def test_shut_down_and_acknowledged(family: str) -> None:
    """FIN_WAIT2: what the peer still says is received, then its end."""
    before = "peer.sendall(b'bye')\npeer.shutdown(socket.SHUT_WR)\nwait_state(5)"
    with _connected(family, before, "result = read()") as (server, client):
        server.wait_log("ready")
        assert client.recv(100) == b"bye"
        assert client.recv(100) == b""
        client.sendall(b"one ")
        server.sleep_and_wake()
        client.sendall(b"two")
        client.shutdown(socket.SHUT_WR)
        assert server.result() == "b'one two'"


@families
def test_shut_down_with_bytes_left(family: str) -> None:
    """FIN_WAIT1: the end comes after all that was written."""
    before = (
        "peer.setblocking(False)\nn = 0\ntry:\n  while True: n += peer.send(b'x' * 8000)\n"
        "except BlockingIOError: pass\npeer.settimeout(20)\npeer.shutdown(socket.SHUT_WR)\nwait_state(4)"
    )
    with _connected(family, before, "result = (n, read())") as (server, client):
        server.wait_log("ready")
        server.sleep_and_wake()
        n = 0
        while piece := client.recv(1 << 20):
            n += len(piece)
        client.sendall(b"thanks")
        client.shutdown(socket.SHUT_WR)
        assert server.result() == f"({n}, b'thanks')"


@families
def test_both_shut_down_with_bytes_left(family: str) -> None:
    """LAST_ACK: what was written before arrives, and then the end."""
    before = (
        "wait_state(8)\npeer.setblocking(False)\nn = 0\ntry:\n  while True: n += peer.send(b'x' * 8000)\n"
        "except BlockingIOError: pass\npeer.settimeout(20)\npeer.shutdown(socket.SHUT_WR)\nwait_state(9)"
    )
    with _connected(family, before, "result = (n, read())") as (server, client):
        client.sendall(b"q")
        client.shutdown(socket.SHUT_WR)
        server.wait_log("ready")
        server.sleep_and_wake()
        n = 0
        while piece := client.recv(1 << 20):
            n += len(piece)
        assert server.result() == f"({n}, b'q')"


@families
def test_reading_was_shut_down_here(family: str) -> None:
    """By its owner, not by its peer: there is an end of file at once, and writing goes on."""
    after = "result = (read(), peer.send(b'on'))"
    with _connected(family, "peer.shutdown(socket.SHUT_RD)", after) as (server, client):
        server.wait_log("ready")
        server.sleep_and_wake()
        server.sleep_and_wake()
        assert server.result() == "(b'', 2)"
        assert client.recv(10) == b"on"


@families
def test_ended_connection(family: str) -> None:
    """CLOSE: what was not read is still there, then the end; the socket knows whom it was connected to."""
    size = 16 if family == "v4" else 28
    after = f"result = (read(), peer.getsockopt(socket.SOL_SOCKET, 28, {size})[2:4].hex())"
    with _connected(family, "peer.shutdown(socket.SHUT_WR)\nwait_state(7)", after) as (server, client):
        client.sendall(b"unread")
        client.shutdown(socket.SHUT_WR)
        server.wait_log("ready")
        server.sleep_and_wake()
        port = client.getsockname()[1]
        assert server.result() == f"(b'unread', '{port:04x}')"


@families
def test_reset_connection(family: str) -> None:
    after = "try:\n  result = read()\nexcept ConnectionResetError: result = 'reset'"
    with _connected(family, "wait_state(7)", after) as (server, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.wait_log("ready")
        server.sleep_and_wake()
        assert server.result() == "reset"
