"""Stores behind a socket, by the protocol of CRIU's image streamer (``criu --stream``): images go by pipes to whoever
listens in the images directory, or come from there.

Dump
    ``streamer-capture.sock``.  For each image its name, then the reading end of a pipe into which it is written.
Restore
    ``streamer-serve.sock``.  For each image its name; whoever listens says whether there is one, and is then given the
    writing end of a pipe, out of which it is read to its end.  An image is given once.
Limits
    A message is a length of four bytes, little endian, and a protobuf message of one field.  Nobody says in the end
    that all has been kept: what can be known is that whoever listens has read all, and is still there.
    He is a stranger: what he gives waits in a file, as long as there is room for it.

Source: criu(8), images/img-streamer.proto and criu/img-streamer.c of CRIU 4.2.
"""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from torpor.base.typed import TYPE_CHECKING, BinaryIO, cast
from torpor.images import kinds, manifest
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.manifest import Summing
from torpor.images.store import PagesReader, check_name, load_all, load_one
from torpor.images.stores.base import BaseStore, PagesStream
from torpor.images.stores.sending import SendingStore
from torpor.images.stores.spooled import Part, Spool
from torpor.images.stores.stream import Pipe

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

_T = TypeVar("_T")
CAPTURE, SERVE = "streamer-capture.sock", "streamer-serve.sock"
_CHUNK = 1 << 20
_MAX_REPLY = 1 << 10
_HINT = "start criu-image-streamer, or another one, with the same --images-dir first"
_LENGTH = struct.Struct("<I")
#: ``img_streamer_request_entry.filename``, and ``img_streamer_reply_entry.exists`` with its two values.
_FILENAME, _EXISTS, _EXISTS_NOT = b"\x0a", b"\x08\x01", b"\x08\x00"


class Streamer:
    """A connection to whoever listens at the socket *name* of *directory*; StoreError."""

    def __init__(self, directory: str, name: str) -> None:
        self.path = os.path.join(directory, name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # By the directory's descriptor, since the address of a socket has room for 107 bytes only.
                self._socket.connect(f"/proc/self/fd/{opened}/{name}")
            finally:
                os.close(opened)
        except OSError as error:
            self._socket.close()
            raise StoreError(f"--stream: nobody listens at {self.path}: {error.strerror}", hint=_HINT) from error

    def ask(self, name: str) -> None:
        """Say which image is meant next; ImageError for what is no plain file name, StoreError where nobody listens."""
        encoded = check_name(name).encode()
        length = bytes([len(encoded)]) if len(encoded) < 128 else bytes([len(encoded) & 127 | 128, len(encoded) >> 7])
        message = _FILENAME + length + encoded
        self._do(lambda: self._socket.sendall(_LENGTH.pack(len(message)) + message))

    def is_there(self) -> bool:
        """Wait for the answer to ``ask``, whether there is such an image.  StoreError."""
        (n_bytes,) = _LENGTH.unpack(self._receive(_LENGTH.size))
        if n_bytes > _MAX_REPLY:
            raise StoreError(f"{self.path}: an answer of {n_bytes} bytes")
        answer = self._receive(n_bytes)
        if answer not in (_EXISTS, _EXISTS_NOT):
            raise StoreError(f"{self.path}: not an answer: {answer[:16].hex()}")
        return answer == _EXISTS

    def _receive(self, n_bytes: int) -> bytes:
        found = self._do(lambda: self._socket.recv(n_bytes, socket.MSG_WAITALL))
        if len(found) < n_bytes:
            raise self._gone()
        return found

    def give(self, fd: int) -> None:
        """Hand over one end of a pipe, which is closed here."""
        try:
            self._do(lambda: socket.send_fds(self._socket, [b"\0"], [fd]))
        finally:
            os.close(fd)

    def check(self) -> None:
        """StoreError where nobody is there any more."""
        try:
            if self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise StoreError(f"{self.path}: an answer to nothing")
        except BlockingIOError:
            return
        except OSError:
            pass
        raise self._gone()

    def _do(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> StoreError:
        return StoreError(f"{self.path}: whoever listened there has gone", hint="his own messages say why")

    def close(self) -> None:
        self._socket.close()


class _Pages:
    """PagesWriter of an image that goes out as it is written."""

    supports_write_at = False

    def __init__(self, store: CaptureStore, name: str) -> None:
        self._store, self._name = store, name
        self._pipe = store.begin(name)
        self._sums = Summing()

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._sums.add(view)
            self._pipe.write(view)

    def reserve(self, n_bytes: int) -> int:
        raise StoreError(f"{self._name}: a stream is written in order")

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        raise StoreError(f"{self._name}: a stream is written in order")

    def close(self) -> None:
        try:
            self._pipe.finish()
        finally:
            self._pipe.close()
        self._store.sent[self._name] = self._sums.end()


class CaptureStore(SendingStore):
    """ImageStore, for writing, of whoever captures images in *directory*; images that wait do so in *spool*."""

    def __init__(self, directory: str, spool: str | None = None) -> None:
        super().__init__(os.path.join(directory, CAPTURE), spool)
        self._streamer = Streamer(directory, CAPTURE)

    def begin(self, name: str) -> Pipe:
        """The way of a new image."""
        self._streamer.ask(name)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pipe = Pipe(writing, f"{self.path} for {name}")
        try:
            self._streamer.give(reading)
        except BaseException:
            pipe.close()
            raise
        return pipe

    def pages_writer(self, name: str, n_bytes: int | None = None) -> _Pages:
        self.refuse_again(name)
        return _Pages(self, name)

    def send(self, name: str, kept: BinaryIO) -> None:
        sums = Summing()
        pipe = self.begin(name)
        try:
            while data := kept.read(_CHUNK):
                sums.add(data)
                pipe.write(data)
            if name in (kinds.INVENTORY.file_name(), manifest.NAME):
                pipe.finish()
        finally:
            pipe.close()
        self.sent[name] = sums.end()

    def commit(self, made: Manifest | None = None) -> None:
        self.send_last(made)
        self._streamer.check()

    def close(self) -> None:
        super().close()
        self._streamer.close()


class ServeStore(BaseStore):
    """ImageStore, for reading, of whoever serves images in *directory*; what he gives waits in *spool*, ours then."""

    def __init__(self, directory: str, spool: Spool) -> None:
        self.path = os.path.join(directory, SERVE)
        self._spool = spool
        #: Start and length in the spool; None for images that are not there.
        self._found: dict[str, tuple[int, int] | None] = {}
        try:
            self._streamer = Streamer(directory, SERVE)
        except BaseException:
            spool.close()
            raise

    def _find(self, name: str) -> tuple[int, int] | None:
        if check_name(name) not in self._found:
            self._streamer.ask(name)
            self._found[name] = self._take(name) if self._streamer.is_there() else None
        return self._found[name]

    def _take(self, name: str) -> tuple[int, int]:
        start = self._spool.size
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with open(reading, "rb", buffering=0) as stream:
            self._streamer.give(writing)
            while data := stream.read(_CHUNK):
                self._spool.check_room(name, len(data))
                self._spool.append(name, data)
        return start, self._spool.size - start

    def names(self) -> list[str]:
        """All that is known to be there: nobody gives a list but the manifest, if there is one.

        What is asked for by name only is there without being here, but for network namespaces, of which the list tells.
        """
        if self.exists(manifest.NAME):
            known = manifest.load(self)
            if known is not None:
                return sorted({*known.files, manifest.NAME})
        if self.exists(kinds.PSTREE.file_name()):
            for entry in load_all(self, kinds.PSTREE):
                if self.exists(kinds.IDS.file_name(entry.pid)):
                    self.exists(kinds.NETNS.file_name(load_one(self, kinds.IDS, entry.pid).net_ns_id))
        return sorted(name for name, place in self._found.items() if place is not None)

    def exists(self, name: str) -> bool:
        return self._find(name) is not None

    def pages_reader(self, name: str) -> PagesReader:
        place = self._find(name)
        if place is None:
            raise ImageMissing(f"{name}: {self.path} has none")
        return Part(self._spool, name, *place)

    def open_read(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(PagesStream(self.pages_reader(name)), _CHUNK))

    def close(self) -> None:
        self._streamer.close()
        self._spool.close()
