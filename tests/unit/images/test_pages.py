"""Where pages come from: here, the parents, nowhere (zeroes), or a page server, which is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pytest

from torpor.images import kinds
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.pagemap import (
    PAGE_BYTES,
    PE_LAZY,
    PE_PARENT,
    PE_PRESENT,
    PageRun,
    Source,
    load_pagemap,
    store_pagemap,
)
from torpor.images.pages import PagesAlone, StoreSink, joined, open_contents, runs_of
from torpor.images.stores.both import BothStore
from torpor.images.stores.memory import MemStore

PID = 7
A = 0x10000


def images(runs: Sequence[tuple[int, int, int]], letter: str, parent: MemStore | None = None) -> MemStore:
    """A store with a page map of (page, number of pages, flags); the n-th present page is full of letter + n."""
    store = MemStore(parent)
    store_pagemap(store, PID, 1, [PageRun(A + page * PAGE_BYTES, n, flags) for page, n, flags in runs])
    present = range(sum(n for _, n, flags in runs if flags & PE_PRESENT))
    store.images["pages-1.img"] = bytearray(b"".join(bytes([ord(letter) + at]) * PAGE_BYTES for at in present))
    return store


def shown(store: MemStore) -> dict[int, str]:
    """What each page of the contents is full of, by its number; "0" for zeroes."""
    found = {}
    with open_contents(store, PID) as contents:
        for first, end, _ in contents.extents:
            for start in range(first, end, PAGE_BYTES):
                content = contents.between(start, start + PAGE_BYTES)
                assert content is not None and len(set(content)) == 1
                found[(start - A) // PAGE_BYTES] = chr(content[0]) if content[0] else "0"
    return found


def test_what_is_here_is_read_as_it_lies() -> None:
    store = images([(0, 2, PE_PRESENT), (5, 1, PE_PRESENT | PE_LAZY)], "a")
    with open_contents(store, PID) as contents:
        assert contents.extents == list(load_pagemap(store, PID).extents())
    assert shown(store) == {0: "a", 1: "b", 5: "c"}


def _streamed(sent: list[str], told: list[PageRun]) -> MemStore:
    """What a sink makes of two runs with bytes, one in the parent images between them, where *told* has been told."""
    first, second = MemStore(), MemStore()
    both = BothStore(first, second)

    def tell(name: str) -> BinaryIO:
        sent.append(name)
        return both.tell(name)

    sink = StoreSink(both, first=tell)
    with sink.open(kinds.PAGEMAP, PID, 4 * PAGE_BYTES, (), lambda: told) as stream:
        assert sent == ["pagemap-7.img"] == [name for name in second.images if name.startswith("pagemap-")]
        assert "pagemap-7.img" not in first.images
        for room in ([(A, PAGE_BYTES)], [(A + PAGE_BYTES, PAGE_BYTES), (A + 5 * PAGE_BYTES, 2 * PAGE_BYTES)]):
            if len(room) == 2:
                stream.run(PageRun(A + 2 * PAGE_BYTES, 1, PE_PARENT))
            length = sum(each for _, each in room)
            stream.write_at(stream.room(room), [memoryview(bytearray(length))])
    assert first.images == second.images
    return first


def test_a_stream_may_have_the_page_map_before_the_pages() -> None:
    here = [(A + first * PAGE_BYTES, A + end * PAGE_BYTES) for first, end in ((0, 1), (1, 2), (5, 7))]
    told = runs_of(here, [PageRun(A + 2 * PAGE_BYTES, 1, PE_PARENT)], ())
    assert [(run.vaddr, run.n_pages, run.flags) for run in told] == [
        (A, 2, PE_PRESENT), (A + 2 * PAGE_BYTES, 1, PE_PARENT), (A + 5 * PAGE_BYTES, 2, PE_PRESENT),
    ]  # fmt: skip
    store = _streamed([], told)
    assert load_pagemap(store, PID).runs == tuple(told)


def test_what_touches_is_one() -> None:
    assert joined([(0, 1), (1, 4), (5, 6), (6, 7), (9, 10)]) == [(0, 4), (5, 7), (9, 10)]
    assert joined([]) == []


def test_what_only_one_store_has_is_written_into_the_other_afterwards() -> None:
    first, second = MemStore(), MemStore()
    both = BothStore(first, second)
    pages = memoryview(bytearray(b"p" * PAGE_BYTES))
    owed: list[str] = []
    with both.second_alone(owed), StoreSink(both).open(kinds.PAGEMAP, PID, PAGE_BYTES) as stream:
        stream.write_at(stream.room([(A, PAGE_BYTES)]), [pages])
    assert owed == ["pages-1.img"]
    assert sorted(second.images) == [*sorted(first.images), "pages-1.img"] == ["pagemap-7.img", "pages-1.img"]
    with PagesAlone(both.make_up(owed[0])) as alone:
        alone.run(PageRun(0, 1, PE_PARENT))
        alone.write_at(alone.room([(A, PAGE_BYTES)]), [pages])
    assert first.images == second.images


def test_other_pages_than_were_told_are_an_error() -> None:
    with pytest.raises(ImageError, match="other pages have come than had been told"):
        _streamed([], [PageRun(A, 4, PE_PRESENT)])


def test_a_chain_is_followed_run_by_run() -> None:
    first = images([(0, 4, PE_PRESENT), (4, 2, 0), (8, 1, PE_PRESENT)], "a")
    second = images([(0, 1, PE_PARENT), (1, 2, PE_PRESENT), (3, 2, PE_PARENT), (8, 1, PE_PARENT)], "k", first)
    third = images(
        [(0, 4, PE_PARENT), (4, 1, PE_PARENT), (6, 1, 0), (8, 1, PE_PARENT), (9, 1, PE_PRESENT)], "x", second
    )
    assert shown(third) == {0: "a", 1: "k", 2: "l", 3: "d", 4: "0", 6: "0", 8: "e", 9: "x"}


def test_segments_have_parents_too() -> None:
    stores = [MemStore()]
    stores.append(MemStore(stores[0]))
    for store, flags in zip(stores, (PE_PRESENT, PE_PARENT), strict=True):
        store_pagemap(store, PID, 1, [PageRun(0, 1, flags)], kinds.SHMEM_PAGEMAP)
        store.images["pages-1.img"] = bytearray(b"s" * PAGE_BYTES)
    with open_contents(stores[1], PID, kinds.SHMEM_PAGEMAP) as contents:
        assert contents.between(0, PAGE_BYTES) == b"s" * PAGE_BYTES


def test_every_combination_of_flags_has_a_source() -> None:
    sources = {flags: PageRun(A, 1, flags).source for flags in range(8)}
    assert sources == {
        0: Source.ZERO,
        PE_PARENT: Source.PARENT,
        PE_LAZY: Source.LAZY,
        PE_PARENT | PE_LAZY: Source.PARENT,
        **{PE_PRESENT | flags: Source.HERE for flags in range(4)},
    }


@pytest.mark.parametrize(
    ("parent", "fault"),
    [
        (None, "no parent"),
        (MemStore(), "no such image"),
        (images([(0, 1, PE_PRESENT)], "a"), "has not the pages"),
        (images([(1, 9, PE_PRESENT)], "a"), "has not the pages"),
        (images([(0, 2, PE_PARENT)], "a"), "no parent"),
        (images([(0, 2, PE_LAZY)], "a"), "memory/.*page server"),
    ],
)
def test_what_the_parents_lack_is_an_error(parent: MemStore | None, fault: str) -> None:
    with pytest.raises(ImageError, match=fault):
        open_contents(images([(0, 2, PE_PARENT)], "x", parent), PID)


def test_pages_of_a_page_server_are_refused() -> None:
    with pytest.raises(ImageMissing, match="page server"):
        open_contents(images([(0, 1, PE_PRESENT), (3, 1, PE_LAZY)], "x"), PID)


def test_what_is_nowhere_is_not_read_as_zeroes() -> None:
    with open_contents(images([(0, 1, PE_PRESENT)], "x"), PID) as contents:
        assert contents.between(A, A + 2 * PAGE_BYTES) is None
