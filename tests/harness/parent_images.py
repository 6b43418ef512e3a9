"""Images made to look as if iterative dumps had made them: most pages lie in the images of earlier dumps."""

import os
from pathlib import Path

from harness.edited import forget_manifest
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT, PageRun, load_pagemap, store_pagemap
from torpor.images.store import ImageStore
from torpor.images.stores.directory import DirStore

#: The latest, and what came before.
_NAMES = ("", "parent-1", "parent-2")
_STALE = b"\xa5" * PAGE_BYTES


def split(images: Path) -> int:
    """Move two of three pages of the set *images* into two parent sets beside it; how many pages there are.

    The parents have something else for the pages that later sets have.
    """
    forget_manifest(images)
    stores = [DirStore(images, "w")]
    for name in _NAMES[1:]:
        stores[-1].set_parent(f"../{name}")
        stores.append(DirStore(images.parent / name, "w", create=True))
    n_pages = 0
    for file_name in stores[0].names():
        found = kinds.by_file_name(file_name)
        if found is not None and found[0].payload == "pagemap" and isinstance(found[1], int):
            n_pages += _split_one(stores, found[1], file_name.startswith("pagemap-shmem-"))
    for store in stores:
        store.close()
    return n_pages


def _split_one(stores: list[DirStore], ident: int, shared: bool) -> int:
    kind = kinds.SHMEM_PAGEMAP if shared else kinds.PAGEMAP
    found = load_pagemap(stores[0], ident, kind)
    pages = Path(stores[0].path, found.pages_name).read_bytes()
    flat = [(at, offset + at - start) for start, end, offset in found.extents() for at in range(start, end, PAGE_BYTES)]
    for level, store in enumerate(stores):
        runs, content = [], []
        for index, (vaddr, offset) in enumerate(flat):
            source = index % len(stores)
            runs.append(PageRun(vaddr, 1, PE_PARENT if source > level else PE_PRESENT))
            if source <= level:
                content.append(pages[offset : offset + PAGE_BYTES] if source == level else _STALE)
        path = Path(store.path, found.pages_name)
        path.unlink(missing_ok=True)
        path.write_bytes(b"".join(content))
        os.chmod(path, 0o600)
        store_pagemap(store, ident, found.pages_id, runs, kind)
    return len(flat)


def lean_on_parent(images: Path) -> int:
    """Take out of the set *images* all pages that its parent has just so; how many they are."""
    forget_manifest(images)
    n_pages = 0
    with DirStore(images, "w") as store:
        parent = store.parent()
        assert parent is not None
        for file_name in store.names():
            found = kinds.by_file_name(file_name)
            if found is None or found[0].payload != "pagemap" or not isinstance(found[1], int):
                continue
            kind = kinds.SHMEM_PAGEMAP if file_name.startswith("pagemap-shmem-") else kinds.PAGEMAP
            if parent.exists(file_name):
                n_pages += _lean_one(store, pages_of(parent, found[1], kind), found[1], kind)
    return n_pages


def pages_of(store: ImageStore, ident: int, kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP) -> dict[int, bytes]:
    """The contents of each page that the images hold themselves, by its address."""
    found = load_pagemap(store, ident, kind)
    reader = store.pages_reader(found.pages_name)
    pages = {}
    for start, end, offset in found.extents():
        content = bytearray(end - start)
        reader.read_at(offset, memoryview(content))
        for at in range(0, len(content), PAGE_BYTES):
            pages[start + at] = bytes(content[at : at + PAGE_BYTES])
    reader.close()
    return pages


def _lean_one(store: DirStore, before: dict[int, bytes], ident: int, kind: ImageKind[m.pagemap_head]) -> int:
    pages, pages_id = pages_of(store, ident, kind), load_pagemap(store, ident, kind).pages_id
    runs = [PageRun(at, 1, PE_PARENT if before.get(at) == page else PE_PRESENT) for at, page in pages.items()]
    path = Path(store.path, kinds.PAGES.file_name(pages_id))
    path.unlink()
    path.write_bytes(b"".join(pages[run.vaddr] for run in runs if run.present))
    os.chmod(path, 0o600)
    store_pagemap(store, ident, pages_id, runs, kind)
    return sum(run.in_parent for run in runs)
