"""A store that is one tar archive, written from its beginning to its end without seeking: into a pipe, say.

    torpor-archive.json      says at the beginning that this is one
    checkpoint/NAME          each image as soon as it is whole; pages as they are copied
    checkpoint/torpor.manifest, checkpoint/inventory.img
                             at the commit: lengths and sums of all, and what makes them a set
    two empty blocks         the end of an archive; without it, all this is cut off

A tar archive says how long a member is before its contents.  Small images are written when they are closed.  How long
an image of pages is going to be is known before it is copied, since what is copied does not run; who does not say it
has the image wait in a file until it is whole.  So each image is one member, and what plain tar unpacks is a set that
any reader of the format takes. docs/internals/streams.md
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import tarfile
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol, cast

from torpor.base.errors import UsageError
from torpor.images import pack
from torpor.images.errors import StoreError
from torpor.images.manifest import Counting, Summing
from torpor.images.stores.sending import INVENTORY, KeptPages, SendingStore

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

_BLOCK = 512
_CHUNK = 1 << 20
_PIPE_BYTES = 1 << 20
_LOOK_EVERY_MS = 2


class Way(Protocol):
    """Where a stream goes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it; StoreError."""

    def finish(self) -> None:
        """Return when all has been taken by whoever reads it; StoreError."""

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
        """Write all of *data*, however long the reader takes; its length.  StoreError where the reader has gone."""
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
        """Return when all has been taken: out of the pipe by its reader, by the disk if it is a file."""
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


class _ToldPages(KeptPages):
    """PagesWriter of an image of *n_bytes*, which go out as they come."""

    def __init__(self, store: TarStore, name: str, n_bytes: int) -> None:
        self._store, self._name, self._left = store, name, n_bytes

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._left -= view.nbytes
            if self._left < 0:
                raise StoreError(f"{self._name}: {-self._left} bytes more than it was to have")
            self._store.send_part(view)

    def close(self) -> None:
        self._store.end_pages(self._name, self._left)


class TarStore(SendingStore):
    """ImageStore, for writing, of one archive; nothing of it is read back.

    *pipe*, a :class:`Pipe` or another way, becomes ours.  *how* it is compressed: as ``pack`` says.  *spool*: a
    directory for images that wait.  Without *sums* its manifest has lengths only: where it goes it is not kept, and
    the way there has sums of its own.  One that is *shared*, the way, is another's until ``begin``.
    """

    def __init__(
        self,
        pipe: Way,
        path: str,
        how: str = "none",
        spool: str | None = None,
        *,
        sums: bool = True,
        shared: bool = False,
    ) -> None:
        super().__init__(path, spool)
        self._counting: type[Summing | Counting] = Summing if sums else Counting
        self._pipe, self._how = pipe, how
        self._sink: pack.Sink | None = None
        self._waiting: list[tuple[str, BinaryIO]] = []
        self._pages = ""
        self._sums = self._counting()
        self._is_damaged = False
        if not shared:
            self.begin()

    def begin(self) -> None:
        """The archive begins: nothing else goes that way until it is closed."""
        self._sink = pack.compressed(cast("BinaryIO", self._pipe), self._how)
        self._header(pack.MARK, 0)

    def names(self) -> list[str]:
        waiting = [name for name, _ in self._waiting]
        open_now = [self._pages] if self._pages else []
        return sorted({*super().names(), *waiting, *open_now})

    def pages_writer(self, name: str, n_bytes: int | None = None) -> KeptPages:
        if n_bytes is None or self._pages:
            return KeptPages(self.keep(name), name)
        self.refuse_again(name)
        self._begin(name, n_bytes)
        self._pages = name
        return _ToldPages(self, name, n_bytes)

    # -- members ----------------------------------------------------------------------------------------------

    def add(self, name: str, kept: BinaryIO) -> None:
        if self._is_damaged:
            kept.close()
        elif self._pages and name != INVENTORY:
            self._waiting.append((name, kept))
        else:
            super().add(name, kept)

    def send(self, name: str, kept: BinaryIO) -> None:
        start = kept.tell()
        n_bytes = kept.seek(0, os.SEEK_END) - start
        kept.seek(start)
        self._begin(name, n_bytes)
        while data := kept.read(_CHUNK):
            self.send_part(data)
        self._end(name)

    def _begin(self, name: str, n_bytes: int) -> None:
        self._header(pack.FOLDER + name, n_bytes)
        self._sums = self._counting()

    def send_part(self, data: bytes | memoryview) -> None:
        """What comes next of the member that is being written."""
        self._sums.add(data)
        self._put(data)

    def _end(self, name: str) -> None:
        made = self.sent[name] = self._sums.end()
        self._put(bytes(-made.n_bytes % _BLOCK))

    def end_pages(self, name: str, n_missing: int) -> None:
        """No more comes of these pages."""
        if self._pages != name:
            return
        self._pages = ""
        if n_missing:
            # Who writes the pages has failed, and tells why: here nothing more goes out.
            self._is_damaged = True
            return
        self._end(name)
        waiting, self._waiting = self._waiting, []
        for each, kept in waiting:
            self.add(each, kept)

    def _header(self, name: str, n_bytes: int) -> None:
        if self._is_damaged:
            raise StoreError(f"{self.path}: not all of it has been written")
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = n_bytes, 0o600, int(time.time())
        self._put(member.tobuf(tarfile.GNU_FORMAT))

    def _put(self, data: bytes | memoryview) -> None:
        assert self._sink is not None
        self._sink.write(data)

    # -- the end ----------------------------------------------------------------------------------------------

    def commit(self, made: Manifest | None = None) -> None:
        if self._pages or self._is_damaged:
            raise StoreError(f"{self.path}: not all of it has been written")
        self.send_last(made)
        self._put(bytes(2 * _BLOCK))
        assert self._sink is not None
        self._sink.close()
        self._pipe.finish()

    def close(self) -> None:
        for _, kept in self._waiting:
            kept.close()
        super().close()
        self._pipe.close()
