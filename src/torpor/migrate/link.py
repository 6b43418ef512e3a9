"""The link between the two sides of a migration: messages and data on one connection, in frames.

    kind (1 byte: M, D, E)    length (4 bytes, big endian)    as many bytes

M is a message, a JSON object with its name under ``is``; D some bytes of data, E their end.  The other side is a
stranger: lengths, names and numbers are checked before they are used.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from torpor.base.errors import MigrationError

_HEAD = struct.Struct(">cI")
_MESSAGE, _DATA, _END = b"M", b"D", b"E"
_MAX_MESSAGE, _MAX_DATA = 4 << 20, 1 << 20
_MAX_TEXT = 1 << 20
#: So long may the other side take nothing: not longer, for a tree of ours may be stopped meanwhile.
_TAKES_WITHIN_S = 60.0
#: Of what it has said before that it gives up there is not more than this takes.
_SAYS_WHY_WITHIN_S = 10.0
#: What a side says when it gives up, whatever was expected of it.
FAILED = "failed"


class LinkLostError(MigrationError):
    """The other side is gone, or cannot be reached any more."""


class FailedThereError(MigrationError):
    """The other side has said that it gives up, and why."""


@dataclass(frozen=True, slots=True)
class Message:
    """``name`` and what it says; what is asked for and is not there, or not so, is a MigrationError."""

    name: str
    fields: dict[str, object]

    def text(self, key: str, default: str | None = None, *, limit: int = _MAX_TEXT) -> str:
        """A string of at most so many characters."""
        found = self.fields.get(key, default)
        if not isinstance(found, str) or len(found) > limit or "\0" in found:
            self.refuse(key)
        return found

    def number(self, key: str, low: int = 0, high: int = 1 << 62, default: int | None = None) -> int:
        """A whole number from *low* to *high*."""
        found = self.fields.get(key, default)
        if type(found) is not int or not low <= found <= high:
            self.refuse(key)
        return found

    def flag(self, key: str) -> bool:
        """Yes or no; no where nothing is said."""
        found = self.fields.get(key, False)
        if not isinstance(found, bool):
            self.refuse(key)
        return found

    def entries(self, key: str, most: int) -> list[object]:
        """A list of at most so many."""
        found = self.fields.get(key, [])
        if not isinstance(found, list) or len(found) > most:
            self.refuse(key)
        return found

    def refuse(self, key: str) -> NoReturn:
        """What stands under *key* makes no sense."""
        raise MigrationError(f"the other side's {self.name!r} makes no sense: {key}")


def encode(name: str, /, **fields: object) -> bytes:
    """A message as a frame."""
    data = json.dumps({"is": name, **fields}, separators=(",", ":")).encode()
    if len(data) > _MAX_MESSAGE:
        raise MigrationError(f"a message of {len(data)} bytes is too long ({name})")
    return _HEAD.pack(_MESSAGE, len(data)) + data


@dataclass(frozen=True, slots=True)
class _Until:
    """How long a message may take as a whole: one that comes by single bytes is not waited for any longer."""

    seconds: float
    deadline: float


class Link:
    """One side's end: reads from one descriptor and writes to another, or the same; both become its own."""

    def __init__(self, reader: int, writer: int, peer: str) -> None:
        self._reader, self._writer, self.peer = reader, writer, peer
        self.n_sent = 0
        #: How many bytes of the data frame that is being read are still to come.
        self._left = 0
        self._room: memoryview | None = None

    def fileno(self) -> int:
        """Of the descriptor that is read."""
        return self._reader

    @property
    def writer(self) -> int:
        """The descriptor that is written to."""
        return self._writer

    def send(self, name: str, /, **fields: object) -> None:
        """Send the message *name* with these fields.  LinkLostError, FailedThereError where the other side gave up."""
        self._write([encode(name, **fields)])

    def send_data(self, data: bytes | memoryview) -> None:
        """Some data; FailedThereError if the other side has given up, and said so, LinkLostError."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _MAX_DATA):
            piece = view[at : at + _MAX_DATA]
            self._write([_HEAD.pack(_DATA, len(piece)), piece])

    def end_data(self) -> None:
        """No more of it comes."""
        self._write([_HEAD.pack(_END, 0)])

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        waiting = [memoryview(piece) for piece in pieces]
        while waiting:
            try:
                n_bytes = os.writev(self._writer, waiting)
            except BlockingIOError:
                if os.get_blocking(self._writer):
                    raise LinkLostError(f"{self.peer} has taken nothing for {_TAKES_WITHIN_S:.0f} s") from None
                select.select((), (self._writer,), ())
                continue
            except OSError as error:
                self._gone(error)
            self.n_sent += n_bytes
            while waiting and n_bytes >= len(waiting[0]):
                n_bytes -= len(waiting.pop(0))
            if waiting:
                waiting[0] = waiting[0][n_bytes:]

    def _gone(self, error: OSError) -> NoReturn:
        """Whoever gives up says why before it goes: that is worth more than that it is gone."""
        raise self.why(LinkLostError(f"the link to {self.peer} is lost: {error.strerror}"))

    def why(self, error: LinkLostError) -> MigrationError:
        """*error*, or what the other side has said of it before it went."""
        deadline = time.monotonic() + _SAYS_WHY_WITHIN_S
        try:
            while (message := self.receive(timeout_s=1.0)).name != FAILED:
                if time.monotonic() > deadline:
                    return error
        except MigrationError:
            return error
        return self.failed(message)

    def failed(self, message: Message) -> FailedThereError:
        """What the other side's FAILED says, as an error."""
        return FailedThereError(f"{self.peer}: {message.text('text')}", hint=message.text("hint", "") or None)

    def has_message(self) -> bool:
        """Whether something has come, were it the end."""
        return bool(select.select((self._reader,), (), (), 0)[0])

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message, whatever it is; LinkLostError, also where it has not come within so many seconds."""
        until = None if timeout_s is None else _Until(timeout_s, time.monotonic() + timeout_s)
        kind, length = self._head(until)
        if kind != _MESSAGE or length > _MAX_MESSAGE:
            raise MigrationError(f"{self.peer} does not speak as torpor does")
        try:
            told = json.loads(self._exactly(length, until))
            name = told.pop("is")
            # What no name, path or argument can hold: half of a character.
            json.dumps(told, ensure_ascii=False).encode(errors="surrogateescape")
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise MigrationError(f"{self.peer} says what makes no sense: {error}") from None
        if not isinstance(name, str):
            raise MigrationError(f"{self.peer} says what makes no sense")
        return Message(name, told)

    def expect(self, *names: str, timeout_s: float | None = None) -> Message:
        """The next message, which is one of these; FailedThereError where it says that it has given up."""
        message = self.receive(timeout_s)
        if message.name == FAILED:
            raise self.failed(message)
        if message.name not in names:
            raise MigrationError(f"{self.peer} says {message.name[:40]!r} where {' or '.join(names)} is due")
        return message

    def read(self, n_bytes: int, /) -> bytes:
        """Some of the data, at most so much; nothing at its end."""
        return bytes(self.view(n_bytes))

    def view(self, n_bytes: int, /) -> memoryview:
        """As ``read``, but good only until more is read."""
        if self._left == 0:
            kind, length = self._head(None)
            if kind == _END and length == 0:
                return memoryview(b"")
            if kind != _DATA or not 0 < length <= _MAX_DATA:
                raise LinkLostError(f"{self.peer} has broken off")
            self._left = length
        if self._room is None:
            self._room = memoryview(bytearray(_MAX_DATA))
        data = self._room[: self._some_into(self._room[: min(n_bytes, self._left)], None)]
        self._left -= len(data)
        return data

    def _head(self, until: _Until | None) -> tuple[bytes, int]:
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size, until))
        return kind, length

    def _exactly(self, n_bytes: int, until: _Until | None) -> bytes:
        data = bytearray(n_bytes)
        view, at = memoryview(data), 0
        while at < n_bytes:
            at += self._some_into(view[at:], until)
        return bytes(data)

    def _some_into(self, room: memoryview, until: _Until | None) -> int:
        """Read into *room*; how many bytes, at least one."""
        while True:
            left = None if until is None else max(0.0, until.deadline - time.monotonic())
            if not select.select((self._reader,), (), (), left)[0]:
                assert until is not None
                raise LinkLostError(f"{self.peer} has said nothing for {until.seconds:.0f} s")
            try:
                n_bytes = os.readv(self._reader, [room])
            except BlockingIOError:
                continue
            except OSError as error:
                raise LinkLostError(f"the link to {self.peer} is lost: {error.strerror}") from None
            if not n_bytes:
                raise LinkLostError(f"the link to {self.peer} has ended")
            return n_bytes

    def close(self) -> None:
        """Close both descriptors; nothing can be sent or received afterwards."""
        for fd in {self._reader, self._writer}:
            os.close(fd)
        self._reader = self._writer = -1


class DataWay:
    """Data on the link as a way for a stream (:class:`torpor.images.stores.stream.Way`)."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def write(self, data: bytes | memoryview, /) -> int:
        """Send all of *data*; its length, as file objects give it.  LinkLostError, FailedThereError."""
        self._link.send_data(data)
        return memoryview(data).nbytes

    def finish(self) -> None:
        """That all has been taken the other side says when it is ready, which is waited for elsewhere."""
        self._link.end_data()

    def close(self) -> None:
        """Nothing: the link is the caller's."""


def own_socket(end: socket.socket, peer: str) -> Link:
    """A link on a socket, which becomes the link's; who takes nothing from it for a while is taken for lost."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(int(_TAKES_WITHIN_S * 1e6), 10**6)))
    fd = end.detach()
    return Link(fd, fd, peer)
