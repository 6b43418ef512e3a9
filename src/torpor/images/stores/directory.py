"""A store that is a directory of files, as CRIU's is.

Files are opened relative to the directory's descriptor and never through symbolic links, except for the link
``parent``, which must lead to a directory.  What is there may have come from somebody else.
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import stat
from collections.abc import Sequence

from torpor.base.typed import BinaryIO, Literal, NoReturn, Self, cast
from torpor.images import kinds, manifest
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.store import check_name
from torpor.images.stores.base import BaseStore

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
#: An image is a new file: what had its name, perhaps with another owner or other names, is left alone.
_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_INVENTORY = kinds.INVENTORY.file_name()
_IOV_MAX = 1024  # UIO_MAXIOV of the kernel
_BUFFER = 1 << 16

_HINTS = {
    errno.ENOSPC: "the file system is full: free some space, or choose another images directory",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another images directory",
    errno.EFBIG: "the file is too big for the file system or for the limit on file size (ulimit -f)",
    errno.EACCES: "check the owner and the mode of the images directory",
    errno.EROFS: "the file system is mounted read-only: choose another images directory",
    errno.ELOOP: "an image must not be a symbolic link: images are not read through links",
    errno.EMFILE: "too many open files (ulimit -n)",
}


def _fail(name: str, doing: str, error: OSError) -> NoReturn:
    kind = ImageMissing if error.errno == errno.ENOENT else StoreError
    text = f"{name}: cannot {doing}: {error.strerror}"
    raise kind(text, hint=_HINTS.get(error.errno or 0)) from error


class _Sums:
    """The sums of the image *name*, which is being written: they are put into *known* at its end."""

    def __init__(self, name: str, known: dict[str, manifest.Content]) -> None:
        self._name, self._known = name, known
        self._sums = manifest.BlockSums()
        self.add = self._sums.add

    def end(self, fd: int) -> None:
        """All is written to *fd*, which is open still."""
        self._known[self._name] = self._sums.end(fd)


class _ImageFile(io.FileIO):
    """A file whose errors name the image."""

    def __init__(self, fd: int, mode: str, name: str, sums: _Sums | None = None) -> None:
        super().__init__(fd, mode)
        self._image = name
        self._sums = sums
        self._at = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            n_bytes = super().write(data)
        except OSError as error:
            _fail(self._image, "write", error)
        if self._sums is not None:
            self._sums.add(self._at, memoryview(data)[:n_bytes])
            self._at += n_bytes
        return n_bytes

    def close(self) -> None:
        try:
            if self._sums is not None and not self.closed:
                self._sums.end(self.fileno())
            super().close()
        except OSError as error:
            _fail(self._image, "write", error)


class DirPagesReader:
    """PagesReader of a file, by preadv."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.size = os.fstat(fd).st_size

    def read_at(self, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        done = 0
        while done < len(view):
            try:
                n_bytes = os.preadv(self._fd, [view[done:]], offset + done)
            except (OSError, OverflowError) as error:
                raise StoreError(f"{self._name}: cannot read at byte {offset + done}: {error}") from error
            if n_bytes == 0:
                raise ImageError(
                    f"{self._name}: truncated: {len(view)} bytes wanted at byte {offset}, {done} are there"
                )
            done += n_bytes

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirPagesWriter:
    """PagesWriter of a file, by pwritev; an append is a reservation written at once."""

    supports_write_at = True

    def __init__(self, fd: int, name: str, sums: _Sums | None = None) -> None:
        self._fd = fd
        self._name = name
        self._sums = sums
        self._end = 0
        #: There is something in it to be written over, more than comes perhaps.
        self._is_room = os.fstat(fd).st_size > 0
        self._lock = _thread.allocate_lock()

    def reserve(self, n_bytes: int) -> int:
        with self._lock:
            offset = self._end
            self._end += n_bytes
        return offset

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        pending = [view.cast("B") for view in buffers if view.nbytes]
        if self._sums is not None:
            at = offset
            for view in pending:
                self._sums.add(at, view)
                at += len(view)
        first = 0
        while first < len(pending):
            try:
                n_bytes = os.pwritev(self._fd, pending[first : first + _IOV_MAX], offset)
            except OSError as error:
                _fail(self._name, "write", error)
            offset += n_bytes
            while first < len(pending) and n_bytes >= len(pending[first]):
                n_bytes -= len(pending[first])
                first += 1
            if n_bytes:
                pending[first] = pending[first][n_bytes:]

    def append(self, buffers: Sequence[memoryview]) -> None:
        self.write_at(self.reserve(sum(view.nbytes for view in buffers)), buffers)

    def close(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            try:
                if self._is_room:
                    os.ftruncate(fd, self._end)
                if self._sums is not None:
                    self._sums.end(fd)
            finally:
                os.close(fd)
        except OSError as error:
            _fail(self._name, "write", error)


class DirStore(BaseStore):
    """ImageStore over a directory.

    *mode* "r" refuses to write; "w" reads too.  The directory must exist unless *create*.  Raises ImageMissing or
    StoreError.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Literal["r", "w"] = "r", *, create: bool = False) -> None:
        self.path = os.fspath(path)
        try:
            if create:
                os.makedirs(self.path, mode=0o700, exist_ok=True)
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            _fail(self.path, "open the images directory", error)
        self._start(fd, mode, frozenset())

    @classmethod
    def from_fd(cls, fd: int, mode: Literal["r", "w"] = "r", path: str = "images directory") -> Self:
        """A store over an open directory; *fd* stays the caller's.  *path* is for messages."""
        try:
            own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        except OSError as error:
            _fail(path, "open the images directory", error)
        return cls._over(own, mode, path, frozenset())

    @classmethod
    def _over(cls, fd: int, mode: Literal["r", "w"], path: str, seen: frozenset[tuple[int, int]]) -> Self:
        store = cls.__new__(cls)
        store.path = path
        store._start(fd, mode, seen)
        return store

    def _start(self, fd: int, mode: Literal["r", "w"], seen: frozenset[tuple[int, int]]) -> None:
        self._fd = fd
        self._mode = mode
        self._written: set[str] = set()
        #: Whether nothing is in it but what this store has written.
        self.is_own = False
        #: Whether what is written from now on is summed when it is written: otherwise it has to be read again.
        self.sums_what_it_writes = False
        #: The sums that are known so, by name.
        self.sums: dict[str, manifest.Content] = {}
        self._seen = seen | {self._identity(fd)}
        self._parent: DirStore | None = None

    @staticmethod
    def _identity(fd: int) -> tuple[int, int]:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def fileno(self) -> int:
        """The directory's descriptor, which stays the store's."""
        return self._fd

    @property
    def written(self) -> list[str]:
        """The names of what was written by this store."""
        return sorted(self._written)

    def names(self) -> list[str]:
        try:
            with os.scandir(self._fd) as found:
                return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))
        except OSError as error:
            _fail(self.path, "list", error)

    @property
    def size_bytes(self) -> int:
        return sum(self._status(name).st_blocks * 512 for name in self.names() if ".img" in name)

    def exists(self, name: str) -> bool:
        if self.is_own and check_name(name) not in self._written:
            return False
        try:
            return stat.S_ISREG(self._status(name).st_mode)
        except ImageMissing:
            return False

    def size_of(self, name: str) -> int:
        return self._status(name).st_size

    def _status(self, name: str) -> os.stat_result:
        try:
            return os.stat(check_name(name), dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            _fail(name, "look for it", error)

    def _open(self, name: str, flags: int, doing: str) -> int:
        check_name(name)
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            _fail(name, doing, error)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreError(f"{name}: not a plain file")
        return fd

    def _open_new(self, name: str) -> int:
        if self._mode != "w":
            self._refuse_writing(name)
        check_name(name)
        try:
            fd = self._create(name)
        except OSError as error:
            _fail(name, "write", error)
        self._written.add(name)
        self.sums.pop(name, None)
        return fd

    def _create(self, name: str) -> int:
        try:
            return os.open(name, _WRITE, 0o600, dir_fd=self._fd)
        except FileExistsError:
            try:
                os.unlink(name, dir_fd=self._fd)
            except OSError as error:
                _fail(name, "replace", error)
            return os.open(name, _WRITE, 0o600, dir_fd=self._fd)

    def _sums_of(self, name: str) -> _Sums | None:
        return _Sums(name, self.sums) if self.sums_what_it_writes else None

    def open_read(self, name: str) -> BinaryIO:
        raw = _ImageFile(self._open(name, _READ, "open"), "r", name)
        return io.BufferedReader(raw, _BUFFER)

    def open_write(self, name: str) -> BinaryIO:
        raw = _ImageFile(self._open_new(name), "w", name, self._sums_of(name))
        return cast(BinaryIO, io.BufferedWriter(raw, _BUFFER))

    def put(self, name: str, data: bytes) -> None:
        fd = self._open_new(name)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        except OSError as error:
            _fail(name, "write", error)
        finally:
            os.close(fd)
        if self.sums_what_it_writes:
            sums = manifest.Summing()
            sums.add(data)
            self.sums[name] = sums.end()

    def pages_reader(self, name: str) -> DirPagesReader:
        return DirPagesReader(self._open(name, _READ, "open"), name)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> DirPagesWriter:
        return DirPagesWriter(self._open_new(name), name, self._sums_of(name))

    def pages_writer_over(self, room: int, name: str) -> DirPagesWriter:
        """As ``pages_writer``, over what is in the file without a name *room*, which stays the caller's.

        A new file where that one cannot become one of this directory's.
        """
        try:
            os.link(f"/proc/self/fd/{room}", check_name(name), dst_dir_fd=self._fd, follow_symlinks=True)
        except OSError:
            return self.pages_writer(name)
        self._written.add(name)
        self.sums.pop(name, None)
        return DirPagesWriter(os.dup(room), name, self._sums_of(name))

    def delete(self, name: str) -> None:
        if self._mode != "w":
            self._refuse_writing(name)
        try:
            os.unlink(check_name(name), dir_fd=self._fd)
        except OSError as error:
            _fail(name, "remove", error)
        self._written.discard(name)
        self.sums.pop(name, None)

    def parent(self) -> DirStore | None:
        if self._parent is None:
            self._parent = self._open_parent()
        return self._parent

    def _open_parent(self) -> DirStore | None:
        try:
            fd = os.open("parent", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            if self._has_parent_link():
                raise ImageMissing(
                    f"{self.path}/parent: the directory of the parent images is gone",
                    hint="keep pre-dump directories where the link `parent` says, until the last dump is restored",
                ) from None
            return None
        except OSError as error:
            _fail("parent", "open the parent images", error)
        if self._identity(fd) in self._seen:
            os.close(fd)
            raise ImageError(f"{self.path}/parent: leads back to images it is the parent of")
        return type(self)._over(fd, "r", f"{self.path}/parent", self._seen)

    def _has_parent_link(self) -> bool:
        try:
            os.stat("parent", dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def set_parent(self, path: str) -> None:
        """Make *path* (relative to this directory, or absolute) the parent, in the place of an earlier one."""
        self._close_parent()
        try:
            if self._has_parent_link():
                os.unlink("parent", dir_fd=self._fd)
            os.symlink(path, "parent", dir_fd=self._fd)
        except OSError as error:
            _fail("parent", "make the link to the parent images", error)

    def commit(self, made: manifest.Manifest | None = None) -> None:
        # A set in a directory is put there by engine/sets, which writes its manifest as well.
        for name in sorted(self._written, key=lambda name: (name == _INVENTORY, name)):
            fd = self._open(name, _READ, "sync")
            try:
                os.fsync(fd)
            except OSError as error:
                _fail(name, "sync", error)
            finally:
                os.close(fd)
        try:
            os.fsync(self._fd)
        except OSError as error:
            _fail(self.path, "sync", error)

    def _close_parent(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None

    def close(self) -> None:
        self._close_parent()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
