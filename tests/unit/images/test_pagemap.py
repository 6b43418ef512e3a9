"""Page maps: there and back, and every contradiction refused."""

from __future__ import annotations

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.pagemap import PE_LAZY, PE_PARENT, PE_PRESENT, PageRun, load_pagemap, store_pagemap
from torpor.images.store import store_all
from torpor.images.stores.memory import MemStore


def pages(store: MemStore, n_pages: int) -> None:
    store.images["pages-1.img"] = bytearray(n_pages * 4096)


def test_round_trip() -> None:
    store = MemStore()
    pages(store, 3)
    runs = (
        PageRun(0x1000, 2, PE_PRESENT),
        PageRun(0x3000, 1, PE_PARENT),
        PageRun(0x10000, 1, PE_PRESENT | PE_LAZY),
        PageRun(0x20000, 1 << 33, 0),
    )
    store_pagemap(store, 7, 1, runs)
    found = load_pagemap(store, 7)
    assert found.runs == runs
    assert (found.pages_id, found.n_present, found.pages_name) == (1, 3, "pages-1.img")
    assert list(found.extents()) == [(0x1000, 0x3000, 0), (0x10000, 0x11000, 8192)]
    assert found.places(0x2000, 0x3000) == [(4096, 8192)] and found.places(0x2000, 0x4000) == []
    assert found.runs[1].in_parent and found.runs[2].lazy and not found.runs[3].present


def test_entries_of_older_images() -> None:
    store = MemStore()
    pages(store, 2)
    old = [m.pagemap_entry(vaddr=0x1000, compat_nr_pages=2)]
    old.append(m.pagemap_entry(vaddr=0x3000, compat_nr_pages=1, in_parent=True))
    store_all(store, kinds.PAGEMAP, [m.pagemap_head(pages_id=1), *old], 7)
    assert load_pagemap(store, 7).runs == (PageRun(0x1000, 2, PE_PRESENT), PageRun(0x3000, 1, PE_PARENT))


@pytest.mark.parametrize(
    ("vaddr", "n_pages", "flags", "fault"),
    [
        (0x3000, 0, PE_PRESENT, "no pages"),
        (0x3001, 1, PE_PRESENT, "multiple"),
        (0x2000, 1, PE_PRESENT, "before the end"),
        (0x3000, 1 << 52, PE_PRESENT, "address space"),
        (0x3000, 1, PE_PRESENT | PE_PARENT, "both"),
        (0x3000, 9, PE_PRESENT, "truncated"),
    ],
)
def test_contradictions_are_refused(vaddr: int, n_pages: int, flags: int, fault: str) -> None:
    store = MemStore()
    pages(store, 3)
    good = m.pagemap_entry(vaddr=0x1000, compat_nr_pages=0, nr_pages=2, flags=PE_PRESENT)
    bad = m.pagemap_entry(vaddr=vaddr, compat_nr_pages=0, nr_pages=n_pages, flags=flags)
    store_all(store, kinds.PAGEMAP, [m.pagemap_head(pages_id=1), good, bad], 7)
    with pytest.raises(ImageError, match=fault):
        load_pagemap(store, 7)


def test_an_empty_pagemap_image_is_an_error() -> None:
    store = MemStore()
    store_all(store, kinds.PAGEMAP, [], 7)
    with pytest.raises(ImageError, match="pagemap_head"):
        load_pagemap(store, 7)
