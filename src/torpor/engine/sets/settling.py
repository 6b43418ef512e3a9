"""What those leave who are killed while they write a set, settled by the next one who comes.

A staging whose writer lives is locked, and left alone.  A whole one (inside) is finished: its tree may have been
killed, and it is all that there is of it.  An earlier set (beside) gets its place back if the machine went down before
the new one was on the disk.  Anything else is removed.  Stagings of somebody whom the place does not belong to are not
believed, and not touched.
"""

from __future__ import annotations

import errno
import fcntl
import os

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.engine.sets.places import OLD, WHOLE, Beside, Inside, Place, is_at, open_at, remove, try_lock
from torpor.images import manifest
from torpor.images.errors import ImageError
from torpor.images.manifest import Manifest


@dataclass(frozen=True, slots=True)
class _Left:
    name: str
    fd: int
    made: Manifest | None


def settle(place: Place) -> str:
    """Finish or remove what the dead have left of *place*; the name of a whole set that could only be found, or ""."""
    names = [name for name in os.listdir(place.fd) if name.startswith(place.prefix)]
    if not names:
        return ""
    whole, rest = _sorted_out(place, names)
    try:
        pending = ""
        for each in whole:
            pending = _finish(place, each)
        for each in rest:
            _discard(place, each)
        return pending
    finally:
        for each in (*whole, *rest):
            os.close(each.fd)


def complete(directory: int) -> None:
    """Add the sums to the set in *directory* (which we have locked, shared) if its dump was killed before it had.

    Only as long as the kernel that wrote it runs, and nobody else is there; OSError, ImageError.
    """
    made = manifest.read(directory)
    if made is None or made.has_sums or made.boot != manifest.boot_id() or not try_lock(directory):
        return
    try:
        if is_whole(directory, -1, made):
            from torpor.engine.sets import writing

            writing.secure(directory, made)
            log.info("sums were added to a checkpoint whose dump was killed")
    finally:
        try_lock(directory, fcntl.LOCK_SH)


def is_cut_off(directory: int) -> bool:
    """Whether the set in *directory* is one that the machine went down upon before all of it was on the disk."""
    try:
        made = manifest.read(directory)
    except ImageError:
        return True
    if made is None or made.has_sums or made.boot == manifest.boot_id():
        return False
    return not is_whole(directory, -1, made)


def settle_path(path: str | os.PathLike[str]) -> None:
    """The same of the set in the directory *path*, as far as we may: for whoever looks for it by other means."""
    for place in places_of(path):
        try:
            settle(place)
        except (OSError, TorporError) as error:
            log.debug(f"{place.path}: {error}")
        finally:
            place.close()


def places_of(path: str | os.PathLike[str]) -> list[Place]:
    """Both kinds of places that *path* may be: neither need be there."""
    real = os.path.realpath(path)
    parent, name = os.path.split(real)
    found: list[Place] = []
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        if name:
            found.append(Beside(os.open(parent, flags), name, real))
        found.append(Inside(os.open(real, flags), real))
    except OSError:
        pass
    return found


def _sorted_out(place: Place, names: list[str]) -> tuple[list[_Left], list[_Left]]:
    """Whole sets, the oldest first, and the rest; all of them locked by us."""
    whole: list[_Left] = []
    rest: list[_Left] = []
    for name in names:
        fd = _taken(place, name)
        if fd < 0:
            continue
        ident = name.removeprefix(place.prefix).removesuffix(WHOLE)
        made = _made(place, fd, ident) if name.endswith(WHOLE) and isinstance(place, Inside) else None
        if made is not None and is_whole(fd, place.fd, made):
            whole.append(_Left(name, fd, made))
        else:
            rest.append(_Left(name, fd, None))
    whole.sort(key=lambda each: each.made.date if each.made else 0)
    rest.sort(key=lambda each: each.name.endswith(OLD))  # what was to take its place goes first
    return whole, rest


def _taken(place: Place, name: str) -> int:
    """The staging, locked; -1 for one that is not ours to take."""
    try:
        fd = open_at(place.fd, name)
    except OSError:
        return -1
    if os.fstat(fd).st_uid in (os.geteuid(), place.owner) and try_lock(fd) and is_at(place.fd, name, fd):
        return fd
    os.close(fd)
    return -1


def _made(place: Place, fd: int, ident: str) -> Manifest | None:
    """The manifest of a staging; it may be in its place already where files cannot be linked."""
    return _manifest_of(fd, ident) or _manifest_of(place.fd, ident)


def _manifest_of(fd: int, ident: str) -> Manifest | None:
    """The manifest of the new set *ident*; None where what has that name is the earlier set by now."""
    try:
        made = manifest.read(fd)
    except ImageError:
        return None
    return made if made is not None and made.ident == ident else None


def is_whole(staging: int, home: int, made: Manifest) -> bool:
    """Whether all that was written is there: in the staging, or (where files cannot be linked) in its place already.

    If the machine went down meanwhile, or this is a copy, holes and the sums that there are tell; else lengths do.
    """
    thorough = made.boot != manifest.boot_id()
    return all(
        _is_there(staging, name, content, thorough)
        or (content.sums is not None and _is_there(home, name, content, True))
        for name, content in made.files.items()
    )


def _is_there(directory: int, name: str, content: manifest.Content, thorough: bool) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    with open(fd, "rb", buffering=0) as stream:
        n_bytes = os.fstat(fd).st_size
        if n_bytes != content.n_bytes or not thorough or not n_bytes:
            return n_bytes == content.n_bytes
        if content.sums is None:
            if not name.startswith("pages-"):
                return True
            return os.lseek(fd, 0, os.SEEK_HOLE) == n_bytes
        return manifest.sums_of(stream, n_bytes) == content.sums


def _finish(place: Place, left: _Left) -> str:
    """ "" or, where it may not be done (read-only, say), the name."""
    assert left.made is not None
    try:
        from torpor.engine.sets import writing

        writing.finish(place, left.fd, left.name, left.made)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT):
            raise
        log.warn(f"{place.path}: a set of images is whole and cannot be put into place: {error.strerror}")
        return left.name
    log.info(f"{place.path}: a checkpoint whose dump was killed was finished")
    return ""


def _discard(place: Place, left: _Left) -> None:
    try:
        if not (isinstance(place, Beside) and _gives_way(place, left)):
            remove(place.fd, left.name, left.fd)
    except OSError as error:
        log.debug(f"{left.name} stays: {error.strerror}")


def _gives_way(place: Beside, left: _Left) -> bool:
    """Whether *left*, an earlier set, stays, as the set that was to take its place is not there, or not yet safe."""
    ident = left.name.removeprefix(place.prefix).removesuffix(OLD)
    try:
        new = place.open()
    except FileNotFoundError:
        if not left.name.endswith(OLD):
            return False
        if not _is_being_put(place, ident):
            place.restore_old(left.name)
        return True
    try:
        made = _manifest_of(new, ident)
        if made is None:
            return False
        if not try_lock(new):
            return True  # its dump is at it still, or somebody reads it
        if is_whole(new, new, made):
            return False
        log.warn(f"{place.path}: the last dump was not on the disk when the machine went down; the one before is back")
        if left.name.endswith(OLD):
            place.take_back(f"{place.prefix}{ident}", new)
            remove(place.fd, f"{place.prefix}{ident}", new)
        return True
    finally:
        os.close(new)


def _is_being_put(place: Beside, ident: str) -> bool:
    """Whether the dump of the set *ident* is just about to give it the place (where that takes two steps)."""
    try:
        fd = open_at(place.fd, f"{place.prefix}{ident}")
    except OSError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)
