"""A connection between two hosts on which pages travel: made, listened for, with or without TLS.

What is waited for has a limit, and what comes is kept in one buffer, whatever the other end says of its length.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

from torpor.base.errors import TorporError, UsageError
from torpor.base.fds import Closing
from torpor.base.records import dataclass
from torpor.migrate.wire import HEADER_BYTES, Message, WireError, pack, unpack

#: The longest that is read at once.
BUFFER_BYTES = 1 << 20
#: For the bytes of what has begun; a peer that is there sends all of them at once.
WITHIN_S = 60
_FAREWELL_S = 2
_IOV_MAX = 1024
#: A peer whose machine is gone is noticed after two minutes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))
_REUSED = "the connection of --ps-socket"


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken: files of the authority's certificates, of revoked ones, of ours and its key ("": none).

    ``check_name``: the server's certificate must be for the address that is connected to.
    """

    ca: str = ""
    crl: str = ""
    certificate: str = ""
    key: str = ""
    check_name: bool = True


@dataclass(frozen=True, slots=True)
class Where:
    """Where the other end is, or where it is waited for; ``fd``: it is connected already (-1: it is not)."""

    address: str = ""
    port: int = 0
    fd: int = -1
    tls: Tls | None = None

    def describe(self) -> str:
        """The place as messages name it: ``HOST:PORT``, an IPv6 address in brackets, ``*`` for any address."""
        if self.fd >= 0:
            return _REUSED
        host = f"[{self.address}]" if ":" in self.address else self.address or "*"
        return f"{host}:{self.port}"


class Connection(Closing):
    """A stream of messages and pages both ways.  Errors are WireError.  A context manager."""

    def __init__(self, link: socket.socket, name: str, *, is_shared: bool = False) -> None:
        self._link = link
        self.name = name
        #: Others may have it open too: that we close it is not seen at the other end.
        self.is_shared = is_shared
        self._room = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._is_plain = type(link) is socket.socket
        link.settimeout(WITHIN_S)

    def fileno(self) -> int:
        """The descriptor of the socket, which stays the connection's."""
        return self._link.fileno()

    @property
    def has_more(self) -> bool:
        """Whether something that has come has not been read, which no poll tells."""
        pending = 0 if self._is_plain else self._link.pending()  # type: ignore[attr-defined]
        return self._end > self._start or pending > 0

    def can_read(self) -> bool:
        """Whether something can be read without waiting for the other end to say it."""
        if self.has_more:
            return True
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # -- out ----------------------------------------------------------------------------------------------------

    def say(self, message: Message) -> None:
        """Send one message, without pages behind it.  WireError."""
        self.send([pack(message)])

    def send(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Send all of them, one behind the other."""
        views = [memoryview(each).cast("B") for each in buffers]
        try:
            if self._is_plain:
                self._send_vectors(views)
            else:
                for view in views:
                    self._link.sendall(view)
        except OSError as error:
            raise self._broken("does not take pages any more", error) from error

    def _send_vectors(self, views: list[memoryview]) -> None:
        first = 0
        while first < len(views):
            n_bytes = self._link.sendmsg(views[first : first + _IOV_MAX], [], socket.MSG_NOSIGNAL)
            while first < len(views) and n_bytes >= len(views[first]):
                n_bytes -= len(views[first])
                first += 1
            if n_bytes:
                views[first] = views[first][n_bytes:]

    # -- in -----------------------------------------------------------------------------------------------------

    def next_message(self, *, within_s: float | None = WITHIN_S) -> Message | None:
        """The next message, or None where the other end has hung up between two; *within_s*: until it begins."""
        if self._end == self._start:
            self._link.settimeout(within_s)
            try:
                if not self._receive():
                    return None
            finally:
                self._link.settimeout(WITHIN_S)
        return unpack(self.read(HEADER_BYTES))

    def read(self, n_bytes: int) -> memoryview:
        """The next *n_bytes* (at most BUFFER_BYTES), good until more is read."""
        if n_bytes > BUFFER_BYTES:
            raise ValueError(f"{n_bytes} bytes are more than the buffer")
        if BUFFER_BYTES - self._start < n_bytes:
            rest = self._end - self._start
            self._room[:rest] = bytes(self._room[self._start : self._end])
            self._start, self._end = 0, rest
        while self._end - self._start < n_bytes:
            if not self._receive():
                raise WireError(f"{self.name} has hung up in the midst of what it had to say")
        found = self._room[self._start : self._start + n_bytes]
        self._start += n_bytes
        if self._start == self._end:
            # What is handed out lies at the end of what has come: the next to come may lie over it.
            self._start = self._end = 0
        return found

    def read_into(self, room: memoryview) -> None:
        """Fill *room*, however long it is."""
        done = 0
        while done < len(room):
            n_bytes = min(len(room) - done, BUFFER_BYTES)
            room[done : done + n_bytes] = self.read(n_bytes)
            done += n_bytes

    def _receive(self) -> int:
        if self._start == self._end:
            self._start = self._end = 0
        try:
            n_bytes = self._link.recv_into(self._room[self._end :])
        except OSError as error:
            raise self._broken("says nothing any more", error) from error
        self._end += n_bytes
        return n_bytes

    def _broken(self, what: str, error: OSError) -> WireError:
        why = f"nothing within {self._link.gettimeout():.0f} s" if isinstance(error, TimeoutError) else error.strerror
        return WireError(f"{self.name} {what}: {why or error}")

    def end(self) -> None:
        """Nothing more is said; wait until the other end has hung up too, so that it is not we who have to remember."""
        try:
            self._link.settimeout(_FAREWELL_S)
            if not self._is_plain:
                self._link.unwrap()  # type: ignore[attr-defined]
            if not self.is_shared:
                self._link.shutdown(socket.SHUT_WR)
                self._link.recv(1)
        except OSError:
            return  # gone already

    def abort(self) -> None:
        """Whatever is waited for on it comes to an end, as if the other end had gone."""
        with suppress(OSError):
            # Of the socket beneath TLS, which has no part in this.
            socket.socket.shutdown(self._link, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; nothing is waited for (``end`` does that)."""
        self._link.close()


def connect(where: Where) -> Connection:
    """Connect to *where*.  TorporError."""
    if where.fd >= 0:
        return _reused(where, is_server=False)
    if not where.port:
        raise UsageError("the page server's port is not known", hint="--port PORT, as the page server has it")
    try:
        link = socket.create_connection((where.address or "127.0.0.1", where.port), timeout=WITHIN_S)
    except (OSError, UnicodeError) as error:  # UnicodeError: what is no name of a host
        raise TorporError(
            f"no page server can be reached at {where.describe()}: {getattr(error, 'strerror', None) or error}",
            hint="start `criu page-server --port PORT` there first",
        ) from error
    return _dressed(link, where, is_server=False)


def _reused(where: Where, *, is_server: bool) -> Connection:
    try:
        link = socket.socket(fileno=os.dup(where.fd))
    except OSError as error:
        raise UsageError(f"--ps-socket {where.fd} is no connected socket: {error.strerror}") from error
    return _dressed(link, where, is_server=is_server)


def _dressed(link: socket.socket, where: Where, *, is_server: bool) -> Connection:
    """The connection on a connected socket, with TLS if that is wanted."""
    link.settimeout(WITHIN_S)
    if link.family in (socket.AF_INET, socket.AF_INET6):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            link.setsockopt(socket.IPPROTO_TCP, option, value)
    name = _name_of(link, where)
    if where.tls is not None:
        from torpor.migrate import tls

        link = tls.wrap(link, where.tls, where.address, is_server=is_server)
    return Connection(link, name, is_shared=where.fd >= 0)


def _name_of(link: socket.socket, where: Where) -> str:
    if where.fd >= 0:
        return f"the other end of {_REUSED}"
    host, port = link.getpeername()[:2]
    return f"the other end, {Where(host, port).describe()},"


class Listener(Closing):
    """Where one connection is waited for."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._server: socket.socket | None = None
        self.port = where.port
        if where.fd < 0:
            self._server = _listen(where)
            self.port = self._server.getsockname()[1]

    def fileno(self) -> int:
        """What can be polled until somebody comes; -1: he is there."""
        return self._server.fileno() if self._server is not None else -1

    def accept(self) -> Connection:
        """Wait for the next one, for as long as it takes."""
        if self._server is None:
            return _reused(self._where, is_server=True)
        link, _ = self._server.accept()
        return _dressed(link, self._where, is_server=True)

    def close(self) -> None:
        """Stop listening; a connection that was accepted stays."""
        if self._server is not None:
            self._server.close()


def _listen(where: Where) -> socket.socket:
    try:
        host = where.address or None
        found = socket.getaddrinfo(host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        server = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise TorporError(f"a page server cannot listen at {where.describe()}: {error}") from error
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(1)
    except OSError as error:
        server.close()
        raise TorporError(f"a page server cannot listen at {where.describe()}: {error.strerror}") from error
    return server


def tell(fd: int, pid: int, port: int) -> None:
    """What CRIU's page server tells whoever has started it: its pid and its port."""
    os.write(fd, struct.pack("=iH2x", pid, port))
