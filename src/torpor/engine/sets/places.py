"""Where a set of images is to be, and how a new one gets there.

A set is written into a directory of its own, its *staging*, on the same file system, and put into its place when it is
whole; whoever is killed in between leaves it to the next one who comes (settling.py).  There are two kinds of places:

``Beside``: a directory that is ours as a whole.
    The staging lies beside it, and the two are exchanged (renameat2) before the tree is killed.  The earlier set stays
    beside it, and is removed when the new one is on the disk.
``Inside``: a directory of somebody else's (``criu dump -D``), who may hold it open and have files of his own in it.
    The staging lies in it.  When it is whole, it counts; then its files are linked into the directory one by one, while
    the directory is locked and has no inventory.

Names: ``PREFIX ID`` while it is written, ``PREFIX ID.whole`` when it is whole (inside), ``PREFIX ID.old`` for the set
that the set ID has taken the place of (beside).  Locks (flock): who writes a staging has it locked; who reads a set has
its directory locked, shared.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torpor.base.errors import UsageError
from torpor.base.late import load
from torpor.images import added, kinds, manifest
from torpor.images.errors import ImageError, StoreError
from torpor.images.manifest import Manifest
from torpor.images.stores.base import COMPRESSED
from torpor.kernel import rename

WHOLE, OLD = ".whole", ".old"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WITHIN_S, _LOOK_EVERY_S = 10, 0.01
_MAX_NAME = 200
#: What lies among images and is no image.
#: The link to the images of the dump before.
PARENT = "parent"
# fmt: off
NEW_MANIFEST = f"{manifest.NAME}.new"
_KNOWN = frozenset({
    manifest.NAME, NEW_MANIFEST, "stats-dump", "stats-restore", PARENT, "torpor-container.json", "torpor-job.json",
    "descriptors.json",
})
# fmt: on
#: A file on its way into place.
_LINK = ".torpor-link"
#: A file system without links, or with no room for another (in a tmpfs each is an inode of its own).
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.ENOSPC, errno.EDQUOT)
_INVENTORY = kinds.INVENTORY.file_name()


def try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock the directory behind *fd* if nobody else has; where a file system knows no locks, it is ours."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EINTR)
    return True


def open_at(directory: int, name: str) -> int:
    """The directory *name* in *directory*, not through a link."""
    return os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=directory)


def make_staging(directory: int, name: str) -> int:
    """Make the directory *name*, which nobody else has, in *directory*: open, and locked by us.  OSError.

    Somebody who settles may take it for a dead one's before it is locked: he removes it then, and it is made again.
    """
    while True:
        with suppress(FileExistsError):  # he has locked it, and not removed it yet
            os.mkdir(name, 0o700, dir_fd=directory)
        try:
            fd = open_at(directory, name)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # where a file system knows no locks, it is ours
            fcntl.flock(fd, fcntl.LOCK_EX)
        if is_at(directory, name, fd):
            return fd
        os.close(fd)


def is_at(directory: int, name: str, fd: int) -> bool:
    """Whether what is open as *fd* is what *name* is in *directory*."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(fd))
    except OSError:
        return False


def remove(directory: int, name: str, fd: int) -> None:
    """Remove the directory *name*, open as *fd*, with all that is in it."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for each, is_directory in entries:
        if is_directory:
            load("shutil").rmtree(each, dir_fd=fd)
        else:
            os.unlink(each, dir_fd=fd)
    os.rmdir(name, dir_fd=directory)


def strangers(directory: int) -> list[str]:
    """What lies in a directory of images and is not of a set: names, sorted."""
    with os.scandir(directory) as found:
        return sorted(entry.name for entry in found if not _is_known(entry))


def _is_known(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if name.startswith(Inside.PREFIX):
        return True
    return not entry.is_dir(follow_symlinks=False) and (name in _KNOWN or name.endswith(".log") or is_image(name))


def is_image(name: str) -> bool:
    """Whether CRIU, or we, call a file of a set so."""
    return kinds.by_file_name(name.removesuffix(added.SUFFIX).removesuffix(COMPRESSED)) is not None


class Place:
    """Where a set is to be.  *fd*, which is ours, is the directory of the stagings; their names begin with *prefix*."""

    def __init__(self, fd: int, prefix: str, path: str) -> None:
        self.fd, self.prefix, self.path = fd, prefix, path

    @property
    def owner(self) -> int:
        """Who the place belongs to: whose stagings are believed, beside our own."""
        return os.fstat(self.fd).st_uid

    def dress(self, staging: int) -> None:
        """Give the new staging the owner and mode that it is to have in its place."""

    def wait_free(self) -> None:
        """Wait until nobody reads what would be in the way, for some seconds."""

    def has_earlier(self) -> bool:
        """Whether ``put`` does away with an earlier set at once."""
        return False

    def put(self, staging: int, name: str, made: Manifest) -> None:
        """Put the whole set *name*, open as *staging*, into place; what was begun before is gone on with."""
        raise NotImplementedError

    def home(self, staging: int) -> int:
        """The directory in which the set lies once it has been put into place."""
        return staging

    def clear(self, name: str) -> None:
        """Remove what the set that was called *name* has taken the place of."""

    def close(self) -> None:
        """Let go of the directory."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Beside(Place):
    """The directory *name* in *parent* (a descriptor that becomes ours), as a whole."""

    def __init__(self, parent: int, name: str, path: str) -> None:
        super().__init__(parent, f".{name}.torpor-", path)
        self._name = name

    def open(self) -> int:
        """What is there now; FileNotFoundError."""
        return open_at(self.fd, self._name)

    @property
    def owner(self) -> int:
        try:
            return os.stat(self._name, dir_fd=self.fd, follow_symlinks=False).st_uid
        except FileNotFoundError:
            return os.geteuid()

    def dress(self, staging: int) -> None:
        with suppress(FileNotFoundError):
            was = os.stat(self._name, dir_fd=self.fd, follow_symlinks=False)
            with suppress(PermissionError):
                os.fchown(staging, was.st_uid, was.st_gid)
            os.fchmod(staging, was.st_mode & 0o7777)

    def put(self, staging: int, name: str, made: Manifest) -> None:
        try:
            self._rename(name, self._name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._exchange(name, name + OLD)

    def _exchange(self, new: str, old: str) -> None:
        """*new* gets our name, and what has it now is called *old*."""
        try:
            rename.exchange(self.fd, new, self._name)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # Should we be killed between these two, nothing has the name.  The tree lives still, and whoever comes next
            # gives the earlier set its name again.
            self._rename(self._name, old)
            self._rename(new, self._name)
        else:
            self._rename(new, old)

    def _rename(self, name: str, new: str) -> None:
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def take_back(self, name: str, new: int) -> None:
        """Undo ``put``, however far it came: what was there is there again, and the set *new* is called *name*."""
        if not is_at(self.fd, self._name, new):
            # Perhaps nothing is there: between the two renames of `_exchange`.
            if not _is_in(self.fd, self._name) and _is_in(self.fd, name + OLD):
                self.restore_old(name + OLD)
            return
        if _is_in(self.fd, name):  # between exchanging and renaming
            rename.exchange(self.fd, name, self._name)
            return
        try:
            self._exchange(name + OLD, name)
        except FileNotFoundError:
            self._rename(self._name, name)

    def restore_old(self, name: str) -> None:
        """Nothing is there: give *name* the place."""
        self._rename(name, self._name)

    def clear(self, name: str) -> None:
        # A set that somebody still reads stays: the next one who comes removes it.
        with suppress(FileNotFoundError):
            fd = open_at(self.fd, name + OLD)
            try:
                if try_lock(fd):
                    remove(self.fd, name + OLD, fd)
            finally:
                os.close(fd)


class Inside(Place):
    """The directory *fd* (which becomes ours) with all that is in it."""

    PREFIX = ".torpor-"

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd, self.PREFIX, path)

    def wait_free(self) -> None:
        with self._locked():
            pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # By a descriptor of its own: others of ours may hold the directory locked.
        own = os.open(".", _OPEN, dir_fd=self.fd)
        try:
            deadline = time.monotonic() + _WITHIN_S
            while not try_lock(own) and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY_S)
            # Without the lock, if it was not to be had in time: somebody may hold it for another reason, and a reader
            # would see by the sums that the set has changed.
            yield
        finally:
            os.close(own)

    def has_earlier(self) -> bool:
        return _is_in(self.fd, _INVENTORY)

    def put(self, staging: int, name: str, made: Manifest) -> None:
        with self._locked():
            if not _is_in(staging, _INVENTORY):
                # All of it is in its place already: whoever put it there was killed just before the staging was
                # removed.
                return remove(self.fd, name, staging)
            self._unlink(_INVENTORY)
            for each in (NEW_MANIFEST, _LINK):
                self._unlink(each)
            for each in self._earlier():
                if each not in made.files:
                    self._unlink(each)
            if _is_in(staging, PARENT):
                self._link(staging, PARENT)
            last = (manifest.NAME, _INVENTORY)
            for each in (*sorted(made.files.keys() - {*last}), *last):
                with suppress(FileNotFoundError):  # it is in its place already
                    self._link(staging, each)
            remove(self.fd, name, staging)

    def _link(self, staging: int, name: str) -> None:
        """Put one file into place; it stays in the staging, which is whole until all are there."""
        try:
            self._give_name(staging, name)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.rename(name, name, src_dir_fd=staging, dst_dir_fd=self.fd)

    def _give_name(self, staging: int, name: str) -> None:
        with suppress(FileExistsError):
            return os.link(name, name, src_dir_fd=staging, dst_dir_fd=self.fd, follow_symlinks=False)
        self._unlink(_LINK)
        os.link(name, _LINK, src_dir_fd=staging, dst_dir_fd=self.fd, follow_symlinks=False)
        os.rename(_LINK, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self._unlink(_LINK)  # of two names of one file, which was in its place already, rename(2) leaves both

    def home(self, staging: int) -> int:
        return self.fd

    def _earlier(self) -> list[str]:
        """The images of the set that has been there until now, as far as its manifest tells."""
        try:
            found = manifest.read(self.fd)
        except ImageError:
            return []
        return [] if found is None else [name for name in found.files if is_image(name)]

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)


def _is_in(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def place_inside(path: str | os.PathLike[str]) -> Inside:
    """The directory *path*, to be shared with others; StoreError."""
    return Inside(_open(os.fspath(path)), os.fspath(path))


def place_whole(path: str | os.PathLike[str], *, force: bool = False) -> Place:
    """The directory *path*, which need not exist, as a whole; StoreError.

    Where it cannot be exchanged (a mount point, a parent that may not be written, a working directory) its contents
    are.  UsageError where others' files are in it, unless *force*, which leaves them there.
    """
    real = os.path.realpath(path)
    parent, name = os.path.split(real)
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{parent}: cannot make the directory: {error.strerror}") from error
    above = _open(parent)
    try:
        fd = open_at(above, name) if name else os.dup(above)
    except FileNotFoundError:
        return Beside(above, name, real)
    except OSError as error:
        os.close(above)
        raise StoreError(f"{real}: cannot open the images directory: {error.strerror}") from error
    foreign = strangers(fd)
    if foreign and not force:
        os.close(above)
        os.close(fd)
        raise UsageError(
            f"{path} has other things in it ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''})",
            hint="choose a new or empty directory; --force puts the images among them",
        )
    if foreign or not _can_be_exchanged(above, name, fd):
        os.close(above)
        return Inside(fd, real)
    os.close(fd)
    return Beside(above, name, real)


def _open(path: str) -> int:
    try:
        return os.open(path, _OPEN)
    except OSError as error:
        raise StoreError(f"{path}: cannot open the images directory: {error.strerror}") from error


def _can_be_exchanged(above: int, name: str, fd: int) -> bool:
    if not name or len(os.fsencode(name)) > _MAX_NAME or os.path.samestat(os.fstat(fd), os.stat(".")):
        return False
    if not os.access(f"/proc/self/fd/{above}", os.W_OK, effective_ids=True):
        return False
    return _mount_of(above) == _mount_of(fd)


def _mount_of(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as stream:
        return next(line for line in stream if line.startswith("mnt_id:"))
