"""A new set of images: written beside the old one, which stays whatever happens until the new one is whole.

    begin       the staging; what the killed have left is settled first
    seal        all images are written: the set is whole, and counts
    finish      written through to the disk, then sums; the earlier set is removed

Between ``seal`` and ``finish`` the tree is killed, if it is: what takes time is done when nothing is frozen any more,
and what can fail for want of space or permission has not failed before.  A crash of the machine in between leaves the
old set; what of the new one has not reached the disk is seen by its length (settling.py).  docs/internals/sets.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fcntl import LOCK_SH
from types import TracebackType

from torpor.base.records import replace
from torpor.base.typed import NoReturn, Self
from torpor.engine.sets import settling
from torpor.engine.sets.places import NEW_MANIFEST, WHOLE, Beside, Place, is_at, make_staging, remove, try_lock
from torpor.images import manifest
from torpor.images.errors import ImageError, StoreError
from torpor.images.manifest import Content, Manifest
from torpor.images.store import ImageStore, PagesWriter
from torpor.images.stores.opening import compressing, open_directory

#: Where more than the set and so many bytes waits to be written to the disk, the set's files are synced one by one, and
#: not the whole file system.
_DIRTY_BYTES = 64 << 20
#: From so many bytes on a file is read by several threads.
_MANY_BYTES = 16 << 20


class NewSet:
    """One set being written into *place*, which becomes ours.  A context manager: what was not sealed is removed.

    ``store`` takes the images; ``ident`` is the set's id; *parent* is where, from the place, the set before this one
    is.  StoreError.
    """

    def __init__(self, place: Place, made_by: str = "", *, compress: bool = False, parent: str = "") -> None:
        self.ident = os.urandom(10).hex()
        self._place = place
        self._made_by = made_by
        self._parent, self._compress = parent, compress
        self._name = place.prefix + self.ident
        self._fd = -1
        self._made: Manifest | None = None
        self._is_placed = False
        #: From here on the earlier set may be gone in part: this one stays, whatever happens.
        self._is_begun = False
        #: The tree is going to be killed, or has been: whatever happens now, the set stays.
        self.is_last = False
        #: The pages are among the images; otherwise somebody has to bring them.
        self.has_pages = True
        try:
            settling.settle(place)
            place.wait_free()
            self._fd = make_staging(place.fd, self._name)
            place.dress(self._fd)
        except OSError as error:
            self._drop()
            place.close()
            _fail(place.path, "begin a set of images", error)
        self._directory = open_directory(self._fd, "w", place.path)
        self._directory.is_own = True
        self.store: ImageStore = compressing(self._directory) if compress else self._directory

    def sum_from_now_on(self) -> None:
        """What is written from now on is summed when it is: it takes time now, and less than to read it again later."""
        self._directory.sums_what_it_writes = True

    def pages_writer_over(self, room: int, name: str) -> PagesWriter | None:
        """What writes an image of pages into the file without a name *room*, if that can be; None where it is
        compressed.
        """
        return None if self._compress else self._directory.pages_writer_over(room, name)

    @property
    def is_sealed(self) -> bool:
        """Whether it has been."""
        return self._made is not None

    @property
    def directory(self) -> str:
        """Where it is going to be."""
        return self._place.path

    @property
    def path(self) -> str:
        """By which it can be read just now, wherever it lies, by us."""
        return f"/proc/self/fd/{self._place.home(self._fd) if self._is_placed else self._fd}"

    def seal(self) -> None:
        """All images are written.  StoreError."""
        try:
            from torpor import __version__

            known = self._directory.sums
            files = {
                name: Content(known[name].n_bytes if name in known else os.stat(name, dir_fd=self._fd).st_size)
                for name in self._directory.written
            }
            if self._parent:
                # Not earlier: the path in the link starts from where the images are going to be.
                self._directory.set_parent(self._parent)
            made = replace(
                manifest.made_here(self.ident, self._made_by, __version__, has_pages=self.has_pages), files=files
            )
            write_manifest(self._fd, made, manifest.NAME)
            if isinstance(self._place, Beside):
                self._place.put(self._fd, self._name, made)
                self._is_placed = True
                try_lock(self._fd, LOCK_SH)
            else:
                whole = self._name + WHOLE
                os.rename(self._name, whole, src_dir_fd=self._place.fd, dst_dir_fd=self._place.fd)
                self._name = whole
        except OSError as error:
            _fail(self._place.path, "write the manifest", error)
        self._made = made

    def place(self) -> None:
        """Put the sealed set into place now, for somebody who wants to see it there.  StoreError."""
        assert self._made is not None
        if self._is_placed:
            return
        try:
            if self._place.has_earlier():
                # This one is to be on the disk before it does away with the earlier one.
                self._made = self._settle()
            self._is_begun = True
            self._place.put(self._fd, self._name, self._made)
        except OSError as error:
            _fail(self._place.path, "put the images into place", error)
        # A lock for as long as we live: by it a reader knows that the writer of the set is not dead.
        try_lock(self._place.home(self._fd), LOCK_SH)
        self._is_placed = True

    def finish(self) -> None:
        """Have the sealed set on disk and in place.  StoreError; the set stays where it was then."""
        assert self._made is not None
        try:
            self._made = self._settle()
            self._is_begun = True
            conclude(self._place, self._fd, self._name, self._made, is_placed=self._is_placed)
        except OSError as error:
            _fail(self._place.path, "put the images into place", error)
        self._is_placed = True

    @contextmanager
    def amended(self) -> Iterator[ImageStore]:
        """A store of the sealed set in its place, whose images may be written anew, or removed.

        At the end of the block all of that takes its place at once, and is on the disk.  StoreError, and whatever is
        raised in the block: the set is as it was then.
        """
        from torpor.engine.sets import amending

        assert self._made is not None and self._is_placed
        try:
            with amending.amended(self._place, self._place.home(self._fd), self._made, self._parent) as new:
                yield compressing(new.directory, borrowed=True) if self._compress else new.directory
                self._made = new.put()
            os.close(self._fd)
            self._fd, self._directory = new.fd, new.directory
            self._place.clear(new.name)
        except OSError as error:
            _fail(self._place.path, "add to the set of images", error)

    def _settle(self) -> Manifest:
        assert self._made is not None
        directory = self._place.home(self._fd) if self._is_placed else self._fd
        made = secure(directory, self._made, self._directory.sums)
        os.fsync(self._place.fd)
        return made

    def _drop(self) -> None:
        """Remove what was written."""
        if self._fd < 0:
            return
        try:
            if self._is_begun:
                return  # whoever comes next goes on
            if isinstance(self._place, Beside):
                self._place.take_back(self._name, self._fd)
            for name in (self._name, f"{self._name}{WHOLE}"):
                if is_at(self._place.fd, name, self._fd):
                    remove(self._place.fd, name, self._fd)
        except OSError:
            return  # read-only by now, say; whoever comes next tries again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        if kind is not None and not self.is_last:
            self._drop()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._place.close()


def finish(place: Place, staging: int, name: str, made: Manifest, *, is_placed: bool = False) -> None:
    """What is done with a whole set when there is time: sums, sync, into place.  OSError, ImageError.

    Called again after a crash, it goes on where it was.
    """
    made = secure(place.home(staging) if is_placed else staging, made)
    os.fsync(place.fd)
    conclude(place, staging, name, made, is_placed=is_placed)


def secure(directory: int, made: Manifest, known: Mapping[str, Content] | None = None) -> Manifest:
    """First part of ``finish``: have the whole set in *directory* on the disk, and then its sums: what has sums has
    been there.  The earlier set is not touched.  *known*: the sums of some of its files.  OSError.
    """
    _sync(directory, made)
    made = add_sums(directory, made, known)
    os.fsync(directory)
    return made


def conclude(place: Place, staging: int, name: str, made: Manifest, *, is_placed: bool) -> None:
    """Second part: it is in its place, and the earlier one is gone."""
    if not is_placed:
        place.put(staging, name, made)
        os.fsync(place.fd)
    place.clear(name)


def add_sums(directory: int, made: Manifest | None = None, known: Mapping[str, Content] | None = None) -> Manifest:
    """Have the manifest of the whole set in *directory* say how its files read, of which some are *known*.

    OSError, ImageError.
    """
    found = manifest.read(directory)
    made = found if found is not None and (made is None or found.has_sums) else made
    assert made is not None
    if not made.has_sums:
        told = known or {}
        made = replace(
            made, files={each: told.get(each) or _summed(directory, each, made.files[each]) for each in made.files}
        )
        replace_manifest(directory, made)
    return made


def replace_manifest(directory: int, made: Manifest) -> None:
    """Have *made* on the disk in place of the manifest in *directory*.  OSError."""
    with suppress(FileNotFoundError):
        os.unlink(NEW_MANIFEST, dir_fd=directory)
    write_manifest(directory, made, NEW_MANIFEST, is_last=True)
    os.rename(NEW_MANIFEST, manifest.NAME, src_dir_fd=directory, dst_dir_fd=directory)


def write_manifest(directory: int, made: Manifest, name: str, *, is_last: bool = False) -> None:
    """OSError.  *is_last*: it is on the disk, too."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as stream:
        stream.write(manifest.encode(made))
        if is_last:
            stream.flush()
            os.fsync(stream.fileno())


def _summed(directory: int, name: str, content: Content) -> Content:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb", buffering=0) as stream:
        if content.n_bytes < _MANY_BYTES:
            return Content(content.n_bytes, manifest.sums_of(stream, content.n_bytes))
        return Content(content.n_bytes, _sums_of_large(stream.fileno(), content.n_bytes))


def _sums_of_large(fd: int, n_bytes: int) -> bytes:
    """As ``manifest.sums_of``, by several threads."""
    from torpor.objects.memory.contents import CHUNK_BYTES, in_parallel

    sums = manifest.BlockSums()

    def add(index: int, buffer: memoryview) -> None:
        start = index * len(buffer)
        sums.add(start, buffer[: os.preadv(fd, [buffer], start)])

    in_parallel(-(-n_bytes // CHUNK_BYTES), add)
    found = sums.end(fd)
    if found.n_bytes != n_bytes or found.sums is None:
        raise ImageError(f"truncated: {n_bytes} bytes wanted, {found.n_bytes} are there")
    return found.sums


def _sync(directory: int, made: Manifest) -> None:
    """Write the set through to the disk: by one call for the whole file system, if others have little to be written."""
    if _dirty_bytes() <= made.n_bytes + _DIRTY_BYTES:
        from torpor.kernel import rename

        rename.syncfs(directory)
        return
    for name in (*made.files, manifest.NAME):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            if made.has_sums:
                continue  # it has been on the disk, and is in its place: who put it there was killed after that
            raise
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    os.fsync(directory)


def _dirty_bytes() -> int:
    """What all file systems of the machine together have yet to write."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        words = [line.split() for line in stream]
    return sum(int(each[1]) << 10 for each in words if each[0] in ("Dirty:", "Writeback:"))


def _fail(path: str, doing: str, error: OSError) -> NoReturn:
    hint = "free some space, or choose another images directory" if error.errno in (28, 122) else None
    raise StoreError(f"{path}: cannot {doing}: {error.strerror}", hint=hint) from error
