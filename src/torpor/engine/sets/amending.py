"""A whole set of images gets more of them: a new one beside it, of the same files, takes its place at once.

For a dump whose last pages come when all else is long there (:mod:`torpor.engine.dump.left`).  Whoever is killed before
the new one has the place leaves the set as it was, and a staging that the next one who comes removes (settling.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torpor.base.records import replace
from torpor.engine.sets import writing
from torpor.engine.sets.places import NO_LINKS, WHOLE, Inside, Place, is_at, make_staging, remove, try_lock
from torpor.images import manifest
from torpor.images.manifest import Content, Manifest
from torpor.images.stores.directory import DirStore
from torpor.images.stores.opening import open_directory

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Amended:
    """The set *made*, which lies in *home*, and what is written of it anew into ``directory``."""

    def __init__(self, place: Place, home: int, made: Manifest, parent: str) -> None:
        self._place, self._home, self._made = place, home, made
        # Inside, a staging that counts is known by the set's id; beside, that may be the name of the earlier one.
        self.name = place.prefix + (made.ident if isinstance(place, Inside) else os.urandom(10).hex())
        self.fd = make_staging(place.fd, self.name)
        self.directory: DirStore = open_directory(self.fd, "w", place.path)
        self.directory.sums_what_it_writes = True
        place.dress(self.fd)
        for name in made.files:
            _link(home, self.fd, name)
        if parent:
            self.directory.set_parent(parent)

    def put(self) -> Manifest:
        """Have it on the disk, and then in its place.  OSError, StoreError."""
        self.directory.close()
        with os.scandir(self.fd) as found:
            sizes = {each.name: each.stat(follow_symlinks=False).st_size for each in found if each.is_file()}
        known = self.directory.sums
        made = replace(self._made, files={name: known.get(name, Content(size)) for name, size in sizes.items()})
        writing.write_manifest(self.fd, made, manifest.NAME)
        made = writing.secure(self.fd, made, known)
        if isinstance(self._place, Inside):
            # It counts from here on: whoever comes next would finish it.
            os.rename(self.name, self.name + WHOLE, src_dir_fd=self._place.fd, dst_dir_fd=self._place.fd)
            self.name += WHOLE
        # Nobody else has it; but whoever puts something there waits until nobody reads it.
        fcntl.flock(self._home, fcntl.LOCK_UN)
        self._place.put(self.fd, self.name, made)
        os.fsync(self._place.fd)
        try_lock(self._place.home(self.fd), fcntl.LOCK_SH)
        return made

    def drop(self) -> None:
        """Nothing has come of it."""
        self.directory.close()
        with suppress(OSError):
            if is_at(self._place.fd, self.name, self.fd) and not self.name.endswith(WHOLE):
                remove(self._place.fd, self.name, self.fd)
        os.close(self.fd)


@contextmanager
def amended(place: Place, home: int, made: Manifest, parent: str) -> Iterator[Amended]:
    """For as long as it is written; what is not ``put`` in the block is dropped at its end."""
    new = Amended(place, home, made, parent)
    try:
        yield new
    except BaseException:
        new.drop()
        raise


def _link(home: int, staging: int, name: str) -> None:
    try:
        os.link(name, name, src_dir_fd=home, dst_dir_fd=staging, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with (
            open(os.open(name, _FLAGS, dir_fd=home), "rb") as source,
            open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=staging), "wb") as target,
        ):
            shutil.copyfileobj(source, target)
