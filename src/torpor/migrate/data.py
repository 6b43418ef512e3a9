"""Data beside the link: several TCP connections in TLS, over which one stream goes in turns.

Each side makes a key and a certificate for this migration alone, tells the other the certificate on the link, which ssh
has encrypted and authenticated, and takes nobody who shows another one.  The destination listens, where the source has
reached it by ssh, for as long as it takes the source to come.

A piece of the stream is its length (4 bytes, big endian) and its bytes; the first goes by the first connection, the
second by the second, and so on.  A length of 0 is the end of the stream; the connections stay for the next.
"""

from __future__ import annotations

import mmap
import os
import queue
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from torpor.base.errors import MigrationError
from torpor.base.worker import Worker
from torpor.migrate.link import LinkLostError

MOST = 16
_HEAD = struct.Struct(">I")
_PIECE = 1 << 19
#: Pieces of each connection that are being filled, wait, or are being emptied.
_ROOMS = 6
_LOOK_EVERY_S = 0.2
_CONNECT_S = 5.0
_ACCEPT_S = 20.0
_MAX_CERTIFICATE = 1 << 14
_NOT_COME = "the source has not come to the port it was told"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate (PEM), and the context of a side that has its key and takes nobody but its peer."""

    certificate: str
    key: str

    def context(self, peer: str, *, server: bool) -> ssl.SSLContext:
        """For one side of connections to whoever has the certificate *peer*; MigrationError where that is none."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.check_hostname = False  # a certificate is known by itself, and by no name
        made.verify_mode = ssl.CERT_REQUIRED
        fd = os.memfd_create("torpor-identity", os.MFD_CLOEXEC)
        try:
            os.write(fd, f"{self.key}{self.certificate}".encode())
            made.load_cert_chain(f"/proc/self/fd/{fd}")
            made.load_verify_locations(cadata=peer)
        except (ssl.SSLError, ValueError) as error:
            raise MigrationError(f"the other side's certificate makes no sense: {error}") from None
        finally:
            os.close(fd)
        return made


def make_identity() -> Identity | None:
    """A new one; None where there is no ``openssl`` to make it."""
    tool = shutil.which("openssl")
    if tool is None:
        return None
    line = [tool, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    line += ["-subj", "/CN=torpor", "-set_serial", str(int.from_bytes(os.urandom(8))), "-keyout", "-", "-out", "-"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    begin = done.stdout.find("-----BEGIN CERTIFICATE-----")
    if done.returncode or begin < 0:
        return None
    return Identity(done.stdout[begin:], done.stdout[:begin])


def is_certificate(text: str) -> bool:
    """Whether it may be one."""
    return 0 < len(text) <= _MAX_CERTIFICATE


class Listener:
    """The destination's: a port at *address*, to which the source comes within a few seconds."""

    def __init__(self, address: str, identity: Identity) -> None:
        self.address, self._identity = address, identity
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family, backlog=MOST)
        self.port: int = self._socket.getsockname()[1]

    def accept(self, n_connections: int, peer: str) -> list[ssl.SSLSocket]:
        """So many connections of whoever has the certificate *peer*; others are let go of.  LinkLostError."""
        context = self._identity.context(peer, server=True)
        deadline = time.monotonic() + _ACCEPT_S
        with ExitStack() as stack:
            taken: list[ssl.SSLSocket | None] = [None] * n_connections
            while None in taken:
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    plain, _ = self._socket.accept()
                except TimeoutError:
                    raise LinkLostError(_NOT_COME) from None
                if time.monotonic() > deadline:  # strangers come all the time
                    plain.close()
                    raise LinkLostError(_NOT_COME)
                number, secured = _welcome(plain, context)
                if secured is None or number >= n_connections or taken[number] is not None:
                    (secured or plain).close()
                    continue
                taken[number] = stack.enter_context(secured)
            stack.pop_all()
            return [each for each in taken if each is not None]

    def fileno(self) -> int:
        """The descriptor of the socket, which stays the listener's."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening; connections that were accepted stay."""
        self._socket.close()


def _welcome(plain: socket.socket, context: ssl.SSLContext) -> tuple[int, ssl.SSLSocket | None]:
    """Who comes, and by which number; None for a stranger."""
    with ExitStack() as stack, suppress(OSError):
        plain.settimeout(_CONNECT_S)
        secured = stack.enter_context(context.wrap_socket(plain, server_side=True))
        number = secured.recv(1)
        if number:
            _settle(secured)
            stack.pop_all()
            return number[0], secured
    return 0, None


def reach(address: str, port: int, n_connections: int) -> list[socket.socket]:
    """So many connections to that port, of which nothing is known yet; OSError where it is not to be reached."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(socket.create_connection((address, port), _CONNECT_S)) for _ in range(n_connections)
        ]
        stack.pop_all()
        return made


def secure(plain: Sequence[socket.socket], identity: Identity, peer: str) -> list[ssl.SSLSocket]:
    """The same, which become its own, in TLS with whoever has the certificate *peer*.  LinkLostError."""
    context = identity.context(peer, server=False)
    with ExitStack() as stack:
        for each in plain:
            stack.enter_context(each)
        made = []
        for number, each in enumerate(plain):
            try:
                secured = stack.enter_context(context.wrap_socket(each))
                secured.sendall(bytes([number]))
            except OSError as error:
                raise LinkLostError(f"no TLS with the other side: {error}") from None
            _settle(secured)
            made.append(secured)
        stack.pop_all()
        return made


def _settle(connection: ssl.SSLSocket) -> None:
    """No time limit but that of TCP: a host that has gone is noticed within half a minute."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


class _Room:
    """Memory for one piece, and its length in front; it is used again for another when that has gone, or been read.

    Shared memory: private memory would be copied, page by page, where it is written to after a fork of ours.
    """

    def __init__(self) -> None:
        self._whole = memoryview(mmap.mmap(-1, _HEAD.size + _PIECE))
        self.content = self._whole[_HEAD.size :]
        self.n_bytes = 0

    def fill(self, data: memoryview) -> None:
        """Copy *data*, which is no longer than a piece may be."""
        self.n_bytes = len(data)
        self.content[: self.n_bytes] = data

    @property
    def sent(self) -> memoryview:
        """The piece as it goes: its length and its bytes."""
        _HEAD.pack_into(self._whole, 0, self.n_bytes)
        return self._whole[: _HEAD.size + self.n_bytes]


#: Of which an end that is broken off leaves none taken (see ``base.worker``).
_Rooms = queue.SimpleQueue[_Room]


class _Ends:
    """Connections, each with a thread of its own and a queue to or from it; a failure of one is that of all.

    Each has some rooms for pieces, and there are never more: those in its queue, and those that are free.
    """

    def __init__(self, connections: Sequence[ssl.SSLSocket]) -> None:
        self._connections = list(connections)
        self._queues: list[_Rooms] = [queue.SimpleQueue() for _ in connections]
        self._free: list[_Rooms] = [queue.SimpleQueue() for _ in connections]
        for free in self._free:
            for _ in range(_ROOMS):
                free.put(_Room())
        self._next = 0
        self._error: Exception | None = None
        self._is_closed = False
        self._workers = [Worker(partial(self._run, number)) for number in range(len(connections))]
        for worker in self._workers:
            worker.begin()

    def _run(self, number: int) -> None:
        try:
            self._work(self._connections[number], self._queues[number], self._free[number])
        except (OSError, ValueError, LinkLostError) as error:
            self._error = self._error or error

    def _work(self, connection: ssl.SSLSocket, waiting: _Rooms, free: _Rooms) -> None:
        raise NotImplementedError

    def _waited_at(self) -> list[_Rooms]:
        """Where the threads wait for what they work on."""
        raise NotImplementedError

    def _turn(self) -> int:
        """The number of the connection whose turn it is."""
        self._next = (self._next + 1) % len(self._queues)
        return self._next - 1

    def _get(self, rooms: _Rooms) -> _Room:
        """The next of them, by whoever sends or reads; LinkLostError where a connection is lost."""
        while True:
            try:
                return rooms.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                if self._error is not None or self._is_closed:
                    raise LinkLostError(f"a connection for data is lost: {self._error or 'closed'}") from None

    def close(self) -> None:
        """No more of it, whatever is under way; the threads have ended then."""
        self._is_closed = True
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for rooms in self._waited_at():
            rooms.put(_Room())  # whoever waits there sees that it is over
        for worker in self._workers:
            worker.wait()
        for connection in self._connections:
            connection.close()


class Sender(_Ends):
    """The source's end: a way for streams, one after the other."""

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it, in time: what is given may be changed afterwards.  LinkLostError."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _PIECE):
            self._put(view[at : at + _PIECE])
        return len(view)

    def finish(self) -> None:
        """The stream has ended."""
        self._put(memoryview(b""))

    def _put(self, piece: memoryview) -> None:
        if self._error is not None:
            raise LinkLostError(f"a connection for data is lost: {self._error}")
        turn = self._turn()
        room = self._get(self._free[turn])
        room.fill(piece)
        self._queues[turn].put(room)

    def _work(self, connection: ssl.SSLSocket, waiting: _Rooms, free: _Rooms) -> None:
        while True:
            room = waiting.get()
            if self._is_closed:
                return
            connection.sendall(room.sent)
            free.put(room)

    def _waited_at(self) -> list[_Rooms]:
        return self._queues


class Receiver(_Ends):
    """The destination's end: what has been sent, as it was."""

    def __init__(self, connections: Sequence[ssl.SSLSocket]) -> None:
        #: The room of the piece that is being read, of which connection that is, and how much of it has been read.
        self._now: tuple[_Room, int] | None = None
        self._at = 0
        super().__init__(connections)

    def view(self, n_bytes: int, /) -> memoryview:
        """Some of the stream, at most so much, good until more is read; nothing at its end, once.  LinkLostError."""
        if self._now is not None and self._at == self._now[0].n_bytes:
            self._free[self._now[1]].put(self._now[0])
            self._now = None
        if self._now is None:
            turn = self._turn()
            self._now, self._at = (self._get(self._queues[turn]), turn), 0
        room = self._now[0]
        found = room.content[self._at : min(self._at + n_bytes, room.n_bytes)]
        self._at += len(found)
        return found

    def read(self, n_bytes: int, /) -> bytes:
        """As ``view``, as bytes of their own."""
        return bytes(self.view(n_bytes))

    def _work(self, connection: ssl.SSLSocket, waiting: _Rooms, free: _Rooms) -> None:
        head = memoryview(bytearray(_HEAD.size))
        while not self._is_closed:
            _fill(connection, head)
            length = _HEAD.unpack(head)[0]
            if length > _PIECE:
                raise LinkLostError("a length that makes no sense")
            room = free.get()
            _fill(connection, room.content[:length])
            room.n_bytes = length
            waiting.put(room)

    def _waited_at(self) -> list[_Rooms]:
        return self._free


def _fill(connection: ssl.SSLSocket, room: memoryview) -> None:
    at, end = 0, len(room)
    while at < end:
        n_read = connection.recv_into(room[at:])
        if not n_read:
            raise LinkLostError("it has ended")
        at += n_read
