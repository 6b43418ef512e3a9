"""Contents against a naive model: random chains of page maps, each page looked up by itself, from the latest on."""

from __future__ import annotations

import random

import pytest

from torpor.images.errors import ImageError
from torpor.images.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT, PageRun, store_pagemap
from torpor.images.pages import open_contents
from torpor.images.stores.memory import MemStore

PID = 7
BASE = 0x7F0000000000
N_PAGES = 40
#: What a page of each kind is, by the flags of its run; None: there is no run.
FLAGS = (None, 0, PE_PARENT, PE_PRESENT, PE_PRESENT | PE_LAZY)


class Level:
    """One set of images, page by page: its flags, and what is in the page if it is here."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.flags = [chance.choice(FLAGS) for _ in range(N_PAGES)]
        if not number:
            self.flags = [PE_PRESENT if flags == PE_PARENT else flags for flags in self.flags]
        self.contents = [bytes([number + 1, page]) * (PAGE_BYTES // 2) for page in range(N_PAGES)]
        self._chance = chance

    def stored(self, parent: MemStore | None) -> MemStore:
        """As images, with neighbours of one kind in one run, or in several."""
        runs: list[PageRun] = []
        pages = []
        for page, flags in enumerate(self.flags):
            if flags is None:
                continue
            at = BASE + page * PAGE_BYTES
            last = runs[-1] if runs else None
            is_next = last is not None and last.vaddr + last.n_pages * PAGE_BYTES == at and last.flags == flags
            if last is not None and is_next and self._chance.random() < 0.8:
                runs[-1] = PageRun(last.vaddr, last.n_pages + 1, flags)
            else:
                runs.append(PageRun(at, 1, flags))
            if flags & PE_PRESENT:
                pages.append(self.contents[page])
        store = MemStore(parent)
        store_pagemap(store, PID, 1, runs)
        store.images["pages-1.img"] = bytearray(b"".join(pages))
        return store


def model(levels: list[Level], page: int) -> bytes | None:
    """What is in the page; None where no image has it. ImageError where a parent should have it."""
    for level in reversed(levels):
        flags = level.flags[page]
        if flags is None:
            if level is levels[-1]:
                return None
            raise ImageError("a parent lacks it")
        if flags & PE_PRESENT:
            return level.contents[page]
        if not flags & PE_PARENT:
            return bytes(PAGE_BYTES)
    raise ImageError("there is no parent")


def modelled(levels: list[Level]) -> dict[int, bytes] | None:
    found = {}
    try:
        for page in range(N_PAGES):
            content = model(levels, page)
            if content is not None:
                found[BASE + page * PAGE_BYTES] = content
    except ImageError:
        return None
    return found


def seen(store: MemStore) -> dict[int, bytes] | None:
    found = {}
    try:
        contents = open_contents(store, PID)
    except ImageError:
        return None
    with contents:
        at = 0
        for start, end, _ in contents.extents:
            assert start >= at, "not in order, or over each other"
            at = end
            content = contents.between(start, end)
            assert content is not None and len(content) == end - start
            for offset in range(0, len(content), PAGE_BYTES):
                found[start + offset] = content[offset : offset + PAGE_BYTES]
    return found


def heal(levels: list[Level], chance: random.Random) -> None:
    """Give parents what they should have, so that the chain is whole."""
    for page in range(N_PAGES):
        for level, parent in zip(reversed(levels), reversed(levels[:-1]), strict=False):
            if level.flags[page] != PE_PARENT:
                break
            if parent.flags[page] is None:
                parent.flags[page] = chance.choice((0, PE_PRESENT))


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_a_chain_is_what_the_model_says(seed: int, is_whole: bool) -> None:
    chance = random.Random(seed)
    levels = [Level(chance, number) for number in range(1 + seed % 6)]
    if is_whole:
        heal(levels, chance)
    store = None
    for level in levels:
        store = level.stored(store)
    assert store is not None
    expected = modelled(levels)
    assert (expected is not None) or not is_whole
    assert seen(store) == expected


@pytest.mark.parametrize("seed", range(20))
def test_any_stretch_is_read_as_the_model_says(seed: int) -> None:
    chance = random.Random(seed)
    levels = [Level(chance, number) for number in range(3)]
    heal(levels, chance)
    store = None
    for level in levels:
        store = level.stored(store)
    assert store is not None
    pages = [model(levels, page) for page in range(N_PAGES)]
    with open_contents(store, PID) as contents:
        for _ in range(100):
            start = chance.randrange(N_PAGES * PAGE_BYTES)
            end = min(start + chance.randrange(1, 5 * PAGE_BYTES), N_PAGES * PAGE_BYTES)
            parts = pages[start // PAGE_BYTES : -(-end // PAGE_BYTES)]
            expected = None
            if None not in parts:
                whole = b"".join(part for part in parts if part is not None)
                first = start // PAGE_BYTES * PAGE_BYTES
                expected = whole[start - first : end - first]
            assert contents.between(BASE + start, BASE + end) == expected
