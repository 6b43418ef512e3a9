"""One whole set of images, opened for reading: the old one or the new one, whatever is written meanwhile.

The directory is held locked, shared, until the store is closed: a set that has been replaced is not removed, and one
whose files are to be renamed into the directory waits.
"""

from __future__ import annotations

import fcntl
import os
import time

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.engine.sets.places import WHOLE, Inside, is_image, open_at, try_lock
from torpor.engine.sets.settling import complete, is_whole, places_of, settle
from torpor.images import kinds, manifest
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.store import ImageStore
from torpor.images.stores.checked import CheckedStore
from torpor.images.stores.directory import DirStore
from torpor.images.stores.opening import Location, open_directory, open_store, plain

_WITHIN_S, _LOOK_EVERY_S = 30, 0.005


def open_set(place: Location, *, verify: bool = True) -> ImageStore:
    """The set of images in *place*: a directory, an archive, or a store that somebody has opened, whose it stays.

    ImageMissing where there is none, or one whose dump did not finish; ImageError where images are of several dumps, or
    (when they are read) damaged, which without *verify* is not looked at.
    """
    if not isinstance(place, str | os.PathLike):
        return _checked(place, verify, borrowed=True)
    where = os.fspath(place)
    if os.path.isfile(where):
        return _checked(open_store(where), verify)
    deadline = time.monotonic() + _WITHIN_S
    while True:
        directory, is_pending = _directory(where)
        try:
            is_held = try_lock(directory.fileno(), fcntl.LOCK_SH) or not _is_changing(directory)
            if is_held and (is_pending or not _is_replaced(where, directory)):
                if not directory.exists(kinds.INVENTORY.file_name()):
                    raise _missing(where, directory)
                if verify and is_held:
                    _complete(where, directory)
                found = manifest.read(directory.fileno())
                if found is not None and not found.has_sums and not is_whole(directory.fileno(), -1, found):
                    raise _missing(where, directory)
                return plain(CheckedStore(directory, found, verify=verify))
        except BaseException:
            directory.close()
            raise
        directory.close()
        if time.monotonic() > deadline:
            raise StoreError(f"{where}: somebody has been writing images there for {_WITHIN_S} s")
        time.sleep(_LOOK_EVERY_S)


def _checked(store: ImageStore, verify: bool, borrowed: bool = False) -> ImageStore:
    try:
        if not store.exists(kinds.INVENTORY.file_name()):
            raise _missing(store.path, store)
        return plain(CheckedStore(store, manifest.load(store), verify=verify, borrowed=borrowed))
    except BaseException:
        if not borrowed:
            store.close()
        raise


def _complete(where: str, directory: DirStore) -> None:
    """Do what the set's dump was killed before it had done, if we may."""
    try:
        complete(directory.fileno())
    except OSError as error:
        log.debug(f"{where}: its sums cannot be added: {error}")


def _directory(where: str) -> tuple[DirStore, bool]:
    """What *where* names, and False; or a whole set that could not be put there, and True."""
    for place in places_of(where):
        try:
            if pending := settle(place):
                fd = open_at(place.fd, pending)
                found = open_directory(fd, "r", f"{place.path}/{pending}")
                os.close(fd)
                return found, True
        except (OSError, TorporError) as error:
            log.debug(f"{where}: {error}")
        finally:
            place.close()
    return open_directory(where), False


def _is_changing(directory: DirStore) -> bool:
    """Whether a new set is being put into the directory; others may have it locked for reasons of their own."""
    return any(name.startswith(Inside.PREFIX) and name.endswith(WHOLE) for name in os.listdir(directory.fileno()))


def _is_replaced(where: str, directory: DirStore) -> bool:
    """Whether the path leads somewhere else by now."""
    try:
        return not os.path.samestat(os.stat(where), os.fstat(directory.fileno()))
    except OSError:
        return False


def _missing(where: str, store: ImageStore) -> ImageMissing:
    name = kinds.INVENTORY.file_name()
    if any(is_image(each) and each.endswith(".img") for each in store.names()):
        return ImageMissing(
            f"{where}: no whole checkpoint: there are images, but {'not all' if store.exists(name) else f'no {name}'}",
            hint="the dump into it did not finish, or it was copied in part; dump again or copy it again",
        )
    return ImageMissing(f"{where}: no checkpoint (there is no {name})")
