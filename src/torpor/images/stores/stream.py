"""A store that is one tar archive, written from its beginning to its end without seeking: into a pipe, say.

    torpor-archive.json      says at the beginning that this is one
    checkpoint/NAME          each image as soon as it is whole; pages as they are copied
    checkpoint/torpor.manifest, checkpoint/inventory.img
                             at the commit: lengths and sums of all, and what makes them a set
    two empty blocks         the end of an archive; without it, all this is cut off

A tar archive says how long a member is before its contents. Small images are written when they are closed. How long an
image of pages is going to be is known before it is copied, since what is copied does not run; who does not say it has
the image wait in a file until it is whole. So each image is one member, and what plain tar unpacks is a set that any
reader of the format takes. docs/internals/streams.md
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import stat
import tarfile
import tempfile
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol, cast

from torpor.base.errors import UsageError
from torpor.base.records import replace
from torpor.images import kinds, manifest, pack
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.manifest import Content, Summing
from torpor.images.store import PagesReader, check_name
from torpor.images.stores.base import BaseStore

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

_BLOCK = 512
_IN_MEMORY = 1 << 20
_CHUNK = 1 << 20
_PIPE_BYTES = 1 << 20
_LOOK_EVERY_MS = 2
_INVENTORY = kinds.INVENTORY.file_name()


class Way(Protocol):
    """Where a stream goes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it; StoreError."""

    def finish(self) -> None:
        """Returns when all has been taken by whoever reads it; StoreError."""

    def close(self) -> None: ...


class Pipe:
    """Where a stream goes: the descriptor *fd*, which becomes ours.  StoreError, UsageError for a terminal."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path
        if os.isatty(fd):
            os.close(fd)
            raise UsageError(f"{path} is a terminal", hint="| ssh HOST torpor restore -, or > FILE.tar")
        self._is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        if self._is_pipe:
            # More than a user may have, perhaps: it works with less.
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it."""
        view = memoryview(data).cast("B")
        n_bytes = len(view)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                select.select((), (self._fd,), ())
            except OSError as error:
                self._fail(error)
        return n_bytes

    def finish(self) -> None:
        """Returns when all has been taken: out of the pipe by its reader, by the disk if it is a file."""
        if not self._is_pipe:
            try:
                os.fsync(self._fd)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EROFS):
                    self._fail(error)
            return
        poll = select.poll()
        poll.register(self._fd, 0)
        while left := self._n_unread():
            if poll.poll(_LOOK_EVERY_MS) and self._n_unread():
                raise StoreError(f"{self._path}: its reader has gone and left {left} bytes")

    def _n_unread(self) -> int:
        told = fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4))
        return int.from_bytes(told, "little")

    def _fail(self, error: OSError) -> NoReturn:
        if error.errno == errno.EPIPE:
            raise StoreError(f"{self._path}: its reader has gone") from error
        hint = "the file system is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise StoreError(f"{self._path}: cannot write: {error.strerror}", hint=hint) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Image(io.RawIOBase):
    """An image that is a member when it is closed."""

    def __init__(self, store: TarStore, name: str) -> None:
        super().__init__()
        self._store, self._name = store, name
        self._kept = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=store.spool)  # noqa: SIM115 - closed when it is sent

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        try:
            return self._kept.write(data)
        except OSError as error:
            raise StoreError(f"{self._name}: cannot keep it until it is whole: {error.strerror}") from error

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._kept.seek(offset, whence)
        return self._kept.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._store.add(self._name, cast("BinaryIO", self._kept))


class _UntoldPages:
    """PagesWriter of an image whose length is known when it is closed."""

    supports_write_at = False

    def __init__(self, image: _Image, name: str) -> None:
        self._image, self._name = image, name

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._image.write(view)  # type: ignore[arg-type]

    def reserve(self, n_bytes: int) -> int:
        raise StoreError(f"{self._name}: a stream is written in order")

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        raise StoreError(f"{self._name}: a stream is written in order")

    def close(self) -> None:
        self._image.close()


class _ToldPages(_UntoldPages):
    """PagesWriter of an image of *n_bytes*, which go out as they come."""

    def __init__(self, store: TarStore, name: str, n_bytes: int) -> None:
        self._store, self._name, self._left = store, name, n_bytes

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._left -= view.nbytes
            if self._left < 0:
                raise StoreError(f"{self._name}: {-self._left} bytes more than it was to have")
            self._store.send(view)

    def close(self) -> None:
        self._store.end_pages(self._name, self._left)


class TarStore(BaseStore):
    """ImageStore, for writing, of one archive; nothing of it is read back.

    *pipe*, a :class:`Pipe` or another way, becomes ours.  *how* it is compressed: as ``pack`` says.  *spool*: a
    directory for images that wait.
    """

    def __init__(self, pipe: Way, path: str, how: str = "none", spool: str | None = None) -> None:
        self.path, self.spool = path, spool
        self._pipe = pipe
        self._sink = pack.compressed(cast("BinaryIO", pipe), how)
        #: Of the images that have gone out, or are about to.
        self._files: dict[str, Content] = {}
        self._waiting: list[tuple[str, BinaryIO]] = []
        self._inventory: BinaryIO | None = None
        self._pages = ""
        self._sums = Summing()
        self._is_damaged = self._is_committed = False
        self._header(pack.MARK, 0)

    @property
    def size_bytes(self) -> int:
        return sum(content.n_bytes for content in self._files.values())

    def names(self) -> list[str]:
        waiting = [name for name, _ in self._waiting]
        open_now = [self._pages] if self._pages else []
        return sorted({*self._files, *waiting, *open_now, *([_INVENTORY] if self._inventory else [])})

    def exists(self, name: str) -> bool:
        return check_name(name) in self._files or name in self.names()

    def size_of(self, name: str) -> int:
        if name not in self._files:
            raise ImageMissing(f"{check_name(name)}: has not been sent")
        return self._files[name].n_bytes

    def open_read(self, name: str) -> BinaryIO:
        raise StoreError(f"{check_name(name)}: a stream is not read back")

    def pages_reader(self, name: str) -> PagesReader:
        raise StoreError(f"{check_name(name)}: a stream is not read back")

    def open_write(self, name: str) -> BinaryIO:
        return cast("BinaryIO", self._new(name))

    def pages_writer(self, name: str, n_bytes: int | None = None) -> _UntoldPages:
        if n_bytes is None or self._pages:
            return _UntoldPages(self._new(name), name)
        self._refuse_again(name)
        self._begin(name, n_bytes)
        self._pages = name
        return _ToldPages(self, name, n_bytes)

    def _new(self, name: str) -> _Image:
        self._refuse_again(name)
        return _Image(self, name)

    def _refuse_again(self, name: str) -> None:
        if self.exists(name) or self._is_committed:
            raise StoreError(f"{name}: has been sent, or the stream has ended")

    def delete(self, name: str) -> None:
        if self.exists(name):
            raise StoreError(f"{name}: has been sent")
        raise ImageMissing(f"{name}: has not been sent")

    # -- members ----------------------------------------------------------------------------------------------

    def add(self, name: str, kept: BinaryIO) -> None:
        """The whole image *name*, which becomes ours."""
        if self._is_damaged:
            kept.close()
        elif name == _INVENTORY:
            self._inventory = kept
        elif self._pages:
            self._waiting.append((name, kept))
        else:
            self._send_whole(name, kept)

    def _send_whole(self, name: str, kept: BinaryIO) -> None:
        with kept:
            self._begin(name, kept.seek(0, os.SEEK_END))
            kept.seek(0)
            while data := kept.read(_CHUNK):
                self.send(data)
        self._end(name)

    def _begin(self, name: str, n_bytes: int) -> None:
        self._header(pack.FOLDER + name, n_bytes)
        self._sums = Summing()

    def send(self, data: bytes | memoryview) -> None:
        """What comes next of the member that is being written."""
        self._sums.add(data)
        self._put(data)

    def _end(self, name: str) -> None:
        made = self._files[name] = self._sums.end()
        self._put(bytes(-made.n_bytes % _BLOCK))

    def end_pages(self, name: str, n_missing: int) -> None:
        """No more comes of these pages."""
        if self._pages != name:
            return
        self._pages = ""
        if n_missing:
            # Whoever writes them fails of something else, which is to be told: nothing more goes out.
            self._is_damaged = True
            return
        self._end(name)
        waiting, self._waiting = self._waiting, []
        for each, kept in waiting:
            self._send_whole(each, kept)

    def _header(self, name: str, n_bytes: int) -> None:
        if self._is_damaged:
            raise StoreError(f"{self.path}: not all of it has been written")
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = n_bytes, 0o600, int(time.time())
        self._put(member.tobuf(tarfile.GNU_FORMAT))

    def _put(self, data: bytes | memoryview) -> None:
        self._sink.write(data)

    # -- the end ----------------------------------------------------------------------------------------------

    def commit(self, made: Manifest | None = None) -> None:
        if self._pages or self._is_damaged or self._inventory is None:
            raise StoreError(f"{self.path}: not all of it has been written")
        sums = Summing()
        sums.add(self._inventory.read() if not self._inventory.seek(0) else b"")
        if made is not None:
            files = {**self._files, _INVENTORY: sums.end()}
            self._send_whole(manifest.NAME, io.BytesIO(manifest.encode(replace(made, files=files))))
        self._send_whole(_INVENTORY, self._inventory)
        self._put(bytes(2 * _BLOCK))
        self._sink.close()
        self._pipe.finish()
        self._is_committed = True

    def close(self) -> None:
        for _, kept in self._waiting:
            kept.close()
        if self._inventory is not None:
            self._inventory.close()
        self._pipe.close()
