"""Images made to look as if iterative dumps had made them: most pages lie in the images of earlier dumps."""

import os
from pathlib import Path

from harness.edited import forget_manifest
from torpor.images import kinds
from torpor.images.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT, PageRun, load_pagemap, store_pagemap
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
    flat = [
        (run.vaddr + at * PAGE_BYTES, (run.pages_offset or 0) + at * PAGE_BYTES)
        for run in found.runs
        for at in range(run.n_pages)
    ]
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
