"""Images whose pages have another size than most: what is counted in pages is counted in theirs."""

from __future__ import annotations

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.pagemap import PAGE_BYTES, PE_PARENT, PageRun, load_pagemap
from torpor.images.pages import StoreSink, open_contents, page_bytes_of
from torpor.images.store import store_one
from torpor.images.stores.memory import MemStore

PID = 7
LARGE = 1 << 16
A = 16 * LARGE


def filled(store: MemStore, letters: str, same: int = 0) -> MemStore:
    """A page of each letter, and behind them so many of the parent's."""
    start = A + len(letters) * LARGE
    with StoreSink(store, LARGE).open(kinds.PAGEMAP, PID) as stream:
        if same:
            stream.run(PageRun(start, same, PE_PARENT, LARGE))
        room = stream.room([(A, len(letters) * LARGE)])
        stream.write_at(room, [memoryview(letter.encode() * LARGE) for letter in letters])
    return store


def test_large_pages_come_out_as_they_went_in() -> None:
    first = filled(MemStore(), "abcd")
    second = filled(MemStore(first), "xy", same=2)
    runs = load_pagemap(second, PID, page_bytes=LARGE).runs
    assert [(run.n_pages, run.n_bytes, run.end) for run in runs] == [
        (2, 2 * LARGE, A + 2 * LARGE), (2, 2 * LARGE, A + 4 * LARGE),
    ]  # fmt: skip
    with open_contents(second, PID, page_bytes=LARGE) as contents:
        assert contents.between(A, A + 4 * LARGE) == b"".join(letter * LARGE for letter in (b"x", b"y", b"c", b"d"))
        assert contents.between(A, A + 5 * LARGE) is None


def test_an_address_within_a_page_is_no_run() -> None:
    store = MemStore()
    with pytest.raises(ImageError, match=f"not a multiple of {LARGE}"):
        with StoreSink(store, LARGE).open(kinds.PAGEMAP, PID) as stream:
            stream.write_at(stream.room([(A + PAGE_BYTES, LARGE)]), [memoryview(bytes(LARGE))])


def _inventory(size: int | None = None) -> MemStore:
    store = MemStore()
    store_one(store, kinds.INVENTORY, m.inventory_entry(img_version=2, torpor_page_bytes=size))
    return store


def test_images_say_which_they_have() -> None:
    assert page_bytes_of(MemStore()) == page_bytes_of(_inventory()) == PAGE_BYTES
    assert page_bytes_of(_inventory(LARGE)) == LARGE


@pytest.mark.parametrize("size", [1, 4095, 12288])
def test_what_no_page_can_have_is_refused(size: int) -> None:
    with pytest.raises(ImageError, match=f"pages of {size} bytes"):
        page_bytes_of(_inventory(size))
