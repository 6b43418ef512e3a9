"""Pages that a later set of images has itself are taken out of those before it: holes where they were.

A chain is as good as before, and takes the room of one set; the sets before the last one are of no use by themselves
then.  Their page maps stay as they are, and so do the lengths of their files.  Whoever is killed meanwhile leaves sets
that can be used: sums are taken away before the holes are made, and written again afterwards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from torpor.base import log
from torpor.base.records import replace
from torpor.engine.sets import writing
from torpor.engine.sets.places import try_lock
from torpor.images import kinds, manifest
from torpor.images import messages as m
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.kinds import ImageKind
from torpor.images.manifest import Content
from torpor.images.pagemap import load_pagemap
from torpor.images.pages import MAX_PARENTS, Range, page_bytes_of
from torpor.images.stores.directory import DirStore
from torpor.images.stores.opening import open_directory
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.falloc import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

#: By the name of a pages image: the stretches of it that nobody needs any more, as (offset, end).
_Holes = dict[str, list[Range]]
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def dedup(path: str | os.PathLike[str]) -> int:
    """Take out of all sets before the one in *path* what that has itself; how many bytes.  ImageError, StoreError."""
    with open_directory(path) as store:
        holes: list[_Holes] = []
        for kind, ident in _page_maps(store):
            _find(store, kind, ident, holes)
        total = 0
        at: DirStore | None = store
        for each in holes:
            assert at is not None
            at = at.parent()
            assert at is not None
            total += _make(at, each)
        return total


def _page_maps(store: DirStore) -> Iterator[tuple[ImageKind[m.pagemap_head], int]]:
    for name in store.names():
        found = kinds.by_file_name(name)
        for kind in (kinds.PAGEMAP, kinds.SHMEM_PAGEMAP):
            if found is not None and found[0] is kind and isinstance(found[1], int):
                yield kind, found[1]


def _find(store: DirStore, kind: ImageKind[m.pagemap_head], ident: int, holes: list[_Holes]) -> None:
    """Add to *holes*, one of each set before, what of them the page map of *store* makes superfluous."""
    page_bytes = page_bytes_of(store)
    runs = load_pagemap(store, ident, kind, page_bytes=page_bytes).runs
    wanted = [(run.vaddr, run.end) for run in runs if run.present]
    before, level = store.parent(), 0
    while wanted and before is not None and level < MAX_PARENTS and before.exists(kind.file_name(ident)):
        if len(holes) == level:
            holes.append({})
        found = load_pagemap(before, ident, kind, page_bytes=page_bytes)
        further: list[Range] = []
        rest = iter(wanted)
        first, end = next(rest, (0, 0))
        for run, offset in found.laid_out():
            while end <= run.vaddr and (more := next(rest, None)) is not None:
                first, end = more
            while first < run.end and end > run.vaddr:
                start, until = max(first, run.vaddr), min(end, run.end)
                if run.present:
                    place = (offset + start - run.vaddr, offset + until - run.vaddr)
                    holes[level].setdefault(found.pages_name, []).append(place)
                elif run.in_parent:
                    further.append((start, until))
                if end > run.end or (more := next(rest, None)) is None:
                    break
                first, end = more
        wanted, before, level = further, before.parent(), level + 1


def _make(store: DirStore, holes: _Holes) -> int:
    if not holes:
        return 0
    if not try_lock(store.fileno()):
        raise StoreError(f"{store.path}: somebody reads these images", hint="try again when that is over")
    made = manifest.read(store.fileno())
    if made is not None:
        # Until there are new ones: a block that has a hole now is not damaged.
        files = {name: Content(each.n_bytes) if name in holes else each for name, each in made.files.items()}
        _write(store, replace(made, files=files))
    total = sum(_punch(store, name, stretches) for name, stretches in holes.items())
    if made is not None and made.has_sums:
        writing.add_sums(store.fileno())
    return total


def _write(store: DirStore, made: manifest.Manifest) -> None:
    try:
        writing.replace_manifest(store.fileno(), made)
    except OSError as error:
        raise StoreError(f"{store.path}: cannot write the manifest: {error.strerror}") from error


def _punch(store: DirStore, name: str, stretches: list[Range]) -> int:
    if not store.exists(name):
        raise ImageMissing(f"{store.path}/{name}: no such image", hint="compressed pages cannot be taken out")
    total = 0
    try:
        fd = os.open(name, _FLAGS, dir_fd=store.fileno())
        try:
            before = os.fstat(fd).st_blocks
            for start, end in stretches:
                mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                syscall("fallocate", nr.fallocate, fd, mode, start, end - start)
            total += (before - os.fstat(fd).st_blocks) * 512
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        hint = "the file system has no holes" if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS) else None
        raise StoreError(f"{store.path}/{name}: cannot take pages out: {error.strerror}", hint=hint) from error
    log.debug(f"{store.path}/{name}: {len(stretches)} stretches taken out, {total} bytes")
    return total
