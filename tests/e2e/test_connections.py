"""A TCP connection between a client on the host and a server in a container, checkpointed while data is under way."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from harness import images
from harness.events import time_limit_s
from harness.podman import Podman

_BLOCK = 500
#: Counts over a connection of its own through the loopback interface.
_TO_ITSELF = """
import socket, time
with socket.create_server(("127.0.0.1", 8080)) as server:
    near = socket.create_connection(("127.0.0.1", 8080))
    far, _ = server.accept()
    number = 0
    while True:
        near.sendall(number.to_bytes(8, "little"))
        number = int.from_bytes(far.recv(8, socket.MSG_WAITALL), "little") + 1
        print(number, flush=True)
        time.sleep(0.05)
"""


def test_data_in_flight(podman: Podman) -> None:
    """Numbers are under way in both directions; through two checkpoints none is lost, doubled or out of order."""
    podman.run("--name", "a", images.APPLICATIONS, "python3", "/srv/apps/flow.py")
    podman.wait_listening("a")
    with _Client(podman.connect(podman.address("a"), 8080)) as client:
        client.wait_moving()
        for _ in range(2):
            with _held_back(podman, podman.address("a")):
                podman("container", "checkpoint", "--tcp-established", "a")
                podman("container", "restore", "--tcp-established", "a")
            client.wait_moving()
        sent, received = client.finish()
        podman("wait", "a")
        assert podman("logs", "a") == f"received {sent}"
        assert received > 0
        assert received % _BLOCK == 0


def test_without_the_option(podman: Podman) -> None:
    """The checkpoint fails and says which option carries a connection, and the connection goes on."""
    podman.run("--name", "a", images.APPLICATIONS, "python3", "/srv/apps/flow.py")
    podman.wait_listening("a")
    with _Client(podman.connect(podman.address("a"), 8080)) as client:
        client.wait_moving()
        podman.fails("container", "checkpoint", "a")
        assert "--tcp-established" in "".join(podman.engine_logs())
        assert podman.is_running("a")
        client.wait_moving()
        sent, _ = client.finish()
        podman("wait", "a")
        assert podman("logs", "a") == f"received {sent}"


def test_without_a_network(podman: Podman) -> None:
    """Nobody but the engine makes the network that such a container has: its loopback interface."""
    podman.run("--name", "a", "--network", "none", images.APPLICATIONS, "python3", "-c", _TO_ITSELF)

    numbers: list[str] = []

    def goes_on() -> bool:
        before, numbers[:] = len(numbers), podman("logs", "a").splitlines()
        return len(numbers) > before > 0

    podman.wait_for(goes_on, "the first numbers")
    for _ in range(2):
        podman("container", "checkpoint", "--tcp-established", "a")
        numbers[:] = podman("logs", "a").splitlines()
        podman("container", "restore", "--tcp-established", "a")
        podman.wait_for(goes_on, "the next number")
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


@contextmanager
def _held_back(podman: Podman, address: str) -> Iterator[None]:
    """Within the block the host sends nothing to the container.

    Podman makes the network anew, address and all, some tenths of a second before it starts the engine. A packet of the
    connection that arrives in between is answered with a reset by the new network namespace, which knows nothing of it.
    """
    rule = ("OUTPUT", "--destination", address, "--protocol", "tcp", "--jump", "DROP")
    podman.machine.run("iptables", "--insert", *rule)
    try:
        yield
    finally:
        podman.machine.run("iptables", "--delete", *rule)


class _Client:
    """Sends and receives as `programs/flow.py` does, in two threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(time_limit_s(60))
        self._sent = 0
        self._received = 0
        self._errors: list[str] = []
        self._ended = threading.Event()
        self._moved = threading.Condition()
        self._threads = [threading.Thread(target=target) for target in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def wait_moving(self, n_numbers: int = 20_000) -> None:
        """Until so many more numbers have gone each way."""
        sent, received = self._sent + n_numbers, self._received + n_numbers
        with self._moved:
            moved = self._moved.wait_for(
                lambda: self._errors or (self._sent >= sent and self._received >= received), time_limit_s(60)
            )
        assert not self._errors, self._errors
        assert moved, f"sent {self._sent}, received {self._received}: it does not move on"

    def finish(self) -> tuple[int, int]:
        """End our sending, read what comes; how many numbers have gone each way."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors, self._errors
        return self._sent, self._received

    def _send(self) -> None:
        try:
            while not self._ended.is_set():
                self._connection.sendall(struct.pack(f"<{_BLOCK}Q", *range(self._sent, self._sent + _BLOCK)))
                self._count(sent=_BLOCK)
                # Not as fast as may be: the other side is to have room, now and then.
                time.sleep(0.001)
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(f"sending: {error}")

    def _receive(self) -> None:
        rest = b""
        try:
            while part := self._connection.recv(65536):
                rest += part
                whole = len(rest) // 8
                numbers = struct.unpack(f"<{whole}Q", rest[: whole * 8])
                if numbers != tuple(range(self._received, self._received + whole)):
                    self._fail(f"after {self._received} numbers others came than should have")
                    return
                rest = rest[whole * 8 :]
                self._count(received=whole)
        except OSError as error:
            self._fail(f"receiving: {error}")

    def _count(self, sent: int = 0, received: int = 0) -> None:
        with self._moved:
            self._sent += sent
            self._received += received
            self._moved.notify_all()

    def _fail(self, why: str) -> None:
        with self._moved:
            self._errors.append(why)
            self._moved.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if error is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._connection.close()
