"""Chains of parent images: hostile ones, and what long ones cost.  What is in sound ones: test_chain_model.py."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT, PageRun, load_pagemap, store_pagemap
from torpor.images.pages import MAX_PARENTS, open_contents
from torpor.images.store import store_all
from torpor.images.stores.checked import CheckedStore
from torpor.images.stores.directory import DirStore
from torpor.images.stores.memory import MemPagesReader, MemStore

PID = 7
BASE = 0x7F00_0000_0000


class Counting(MemStore):
    """Notes what is opened."""

    def __init__(self, parent: MemStore | None = None) -> None:
        super().__init__(parent)
        self.opened: list[str] = []

    def open_read(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return super().open_read(name)

    def pages_reader(self, name: str) -> MemPagesReader:
        self.opened.append(name)
        return super().pages_reader(name)


def _directories(root: Path, n_sets: int) -> list[Path]:
    """Sets in each of which the only page is said to be in the parent, the next of them."""
    found = []
    for index in range(n_sets):
        found.append(root / f"set-{index}")
        with DirStore(found[-1], "w", create=True) as store:
            store_pagemap(store, PID, 1, [PageRun(BASE, 1, PE_PARENT)])
            store.pages_writer("pages-1.img").close()
            store.set_parent(f"../set-{index + 1}")
    return found


def test_a_chain_without_an_end_is_refused_and_so_is_a_circle(tmp_path: Path) -> None:
    sets = _directories(tmp_path, MAX_PARENTS + 2)
    with DirStore(sets[0]) as store, pytest.raises(ImageError, match=f"more than {MAX_PARENTS}"):
        open_contents(store, PID)
    with DirStore(sets[3], "w") as store:
        store.set_parent("../set-1")
    with DirStore(sets[0]) as store, pytest.raises(ImageError, match="leads back"):
        open_contents(store, PID)
    with DirStore(sets[3], "w") as store:
        store.set_parent(".")
    with DirStore(sets[0]) as store, pytest.raises(ImageError, match="leads back"):
        open_contents(store, PID)


def test_a_parent_that_lacks_a_page_is_named_with_its_directory(tmp_path: Path) -> None:
    sets = _directories(tmp_path, 3)
    with DirStore(sets[2], "w") as store:
        store_pagemap(store, PID, 1, [PageRun(BASE + PAGE_BYTES, 1, PE_PRESENT)])
        writer = store.pages_writer("pages-1.img")
        writer.append([memoryview(bytes(PAGE_BYTES))])
        writer.close()
    with DirStore(sets[0]) as store, pytest.raises(ImageError, match="has not the pages") as caught:
        open_contents(store, PID)
    assert f"{sets[0]}/parent/parent/pagemap-{PID}.img" in str(caught.value)


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([(0, 2, PE_PRESENT), (1, 1, PE_PRESENT)], "before the end"),
        ([(1, 1, PE_PRESENT), (0, 1, PE_PRESENT)], "before the end"),
        ([(0, 1, PE_PRESENT | PE_PARENT)], "both"),
        ([(0, 100, PE_PRESENT)], "truncated"),
    ],
)
def test_what_is_wrong_in_a_parent_is_said_of_it(runs: list[tuple[int, int, int]], fault: str) -> None:
    parent = MemStore()
    entries = [
        m.pagemap_entry(vaddr=BASE + page * PAGE_BYTES, compat_nr_pages=n, nr_pages=n, flags=flags)
        for page, n, flags in runs
    ]
    store_all(parent, kinds.PAGEMAP, [m.pagemap_head(pages_id=1), *entries], PID)
    parent.images["pages-1.img"] = bytearray(3 * PAGE_BYTES)
    store = MemStore(parent)
    store_pagemap(store, PID, 1, [PageRun(BASE, 1, PE_PARENT)])
    store.images["pages-1.img"] = bytearray()
    with pytest.raises(ImageError, match=fault) as caught:
        open_contents(store, PID)
    assert "in the parent images memory" in caught.value.describe()


def test_a_long_chain_is_gone_through_once() -> None:
    """Ten parents, each of which has every tenth of many runs; each image of each is opened once."""
    n_runs = 2_000
    stores: list[Counting] = []
    for level in range(10):
        stores.append(Counting(stores[-1] if stores else None))
        runs = [
            PageRun(BASE + 2 * at * PAGE_BYTES, 1, PE_PRESENT if level == 0 or at % 10 == level else PE_PARENT)
            for at in range(n_runs)
        ]
        store_pagemap(stores[-1], PID, 1, runs)
        n_present = sum(run.present for run in runs)
        stores[-1].images["pages-1.img"] = bytearray([level + 1]) * (n_present * PAGE_BYTES if level else PAGE_BYTES)
    stores[0].pages_reader = _Endless  # type: ignore[method-assign, assignment]
    stores[0].size_of = lambda name: 1 << 40  # type: ignore[method-assign]
    with open_contents(stores[-1], PID) as found:
        assert len(found.extents) == n_runs
        for at in (0, 1, 9, 10, n_runs - 1):
            start = BASE + 2 * at * PAGE_BYTES
            assert found.between(start, start + PAGE_BYTES) == bytes([at % 10 + 1]) * PAGE_BYTES
    for store in stores[1:]:
        assert sorted(set(store.opened)) == ["pagemap-7.img", "pages-1.img"]
        assert store.opened.count("pagemap-7.img") == 1
    assert stores[0].opened == ["pagemap-7.img"]


class _Endless:
    """PagesReader of ones."""

    size = 1 << 40

    def __init__(self, name: str) -> None:
        pass

    def read_at(self, offset: int, into: memoryview) -> None:
        into[:] = b"\1" * into.nbytes

    def close(self) -> None:
        pass


def test_the_parents_of_a_set_are_opened_once(tmp_path: Path) -> None:
    sets = _directories(tmp_path, 2)
    with CheckedStore(DirStore(sets[0]), None) as store:
        parent = store.parent()
        assert parent is not None and store.parent() is parent
        assert load_pagemap(parent, PID).runs[0].in_parent
    with pytest.raises(ImageError):
        load_pagemap(parent, PID)


def _filled(parent: Counting | None, n_pages: int, here: set[int]) -> Counting:
    """A set that has these pages itself; all others are its parent's."""
    made = Counting(parent)
    runs = [PageRun(BASE + at * PAGE_BYTES, 1, PE_PRESENT if at in here else PE_PARENT) for at in range(n_pages)]
    store_pagemap(made, PID, 1, runs)
    writer = made.pages_writer("pages-1.img")
    writer.append([memoryview(bytes([1 + at])) for at in sorted(here) for _ in range(PAGE_BYTES)])
    writer.close()
    made.opened.clear()
    return made


def test_what_is_there_already_is_not_looked_for() -> None:
    """A last set with some pages here and there: of those before nothing is opened, and few extents are made."""
    n_pages = 40
    first = _filled(None, n_pages, {*range(n_pages)})
    second = _filled(first, n_pages, {*range(0, n_pages, 3)})
    last = _filled(second, n_pages, {5, 20})
    there = [(BASE, BASE + n_pages * PAGE_BYTES)]
    with open_contents(last, PID, there=there) as kept:
        assert first.opened == second.opened == []
        assert len(kept.extents) == 5
        assert [each for each in kept.extents if not kept.is_of_parents(each)] == [
            (BASE + at * PAGE_BYTES, BASE + (at + 1) * PAGE_BYTES, number * PAGE_BYTES)
            for number, at in enumerate((5, 20))
        ]
        assert kept.between(BASE + 20 * PAGE_BYTES, BASE + 21 * PAGE_BYTES) == bytes([21]) * PAGE_BYTES
        with pytest.raises(ValueError, match="nobody has looked"):
            kept.between(BASE, BASE + PAGE_BYTES)


def test_what_is_not_there_is_looked_for_beside_it() -> None:
    n_pages = 40
    first = _filled(None, n_pages, {*range(n_pages)})
    last = _filled(first, n_pages, {5})
    there = [(BASE + 2 * PAGE_BYTES, BASE + 10 * PAGE_BYTES), (BASE + 12 * PAGE_BYTES, BASE + 1000 * PAGE_BYTES)]
    with open_contents(last, PID, there=there) as kept:
        for at in (0, 1, 5, 10, 11):
            assert kept.between(BASE + at * PAGE_BYTES, BASE + (at + 1) * PAGE_BYTES) == bytes([1 + at]) * PAGE_BYTES
        assert sum(end - start for start, end, _ in kept.extents) == n_pages * PAGE_BYTES
