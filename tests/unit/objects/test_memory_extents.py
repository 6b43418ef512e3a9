"""Extents of memory: overlays of two lists, and what a child must write of its own."""

from torpor.images import messages as m
from torpor.images.pagemap import PE_PRESENT, PageRun, store_pagemap
from torpor.images.pages import open_contents
from torpor.images.stores.memory import MemStore
from torpor.kernel.procfs.maps import Vma
from torpor.objects.memory import contents, inherited, space
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_REGULAR

PAGE = 4096


class Reader:
    """A PagesReader over bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read_at(self, offset: int, into: memoryview) -> None:
        into[:] = self._content[offset : offset + len(into)]

    def close(self) -> None:
        pass


def test_overlay_splits_where_either_begins_or_ends() -> None:
    found = list(inherited.overlay([(0, 10, 0), (20, 30, 10)], [(5, 25, 0)]))
    assert [(start, end) for start, end, _, _ in found] == [(0, 5), (5, 10), (10, 20), (20, 25), (25, 30)]
    assert [(one is not None, other is not None) for _, _, one, other in found] == [
        (True, False), (True, True), (False, True), (True, True), (True, False),
    ]  # fmt: skip


def test_only_pages_that_differ_are_written() -> None:
    parent = b"a" * PAGE + b"b" * PAGE + b"c" * PAGE
    child = b"a" * PAGE + b"x" * PAGE + b"n" * PAGE
    calls: list[inherited.Call] = []
    sources = (inherited.PageSource(Reader(parent)), inherited.PageSource(Reader(child)))
    written = inherited.differing(
        [(0, 3 * PAGE, 0)], [(0, 2 * PAGE, 0), (4 * PAGE, 5 * PAGE, 2 * PAGE)], [(0, 8 * PAGE, 0)], sources, calls
    )
    assert written == [(PAGE, 2 * PAGE, PAGE), (4 * PAGE, 5 * PAGE, 2 * PAGE)]
    assert [call[1:3] for call in calls] == [(2 * PAGE, PAGE)], "the parent's third page is dropped"


def _entry(start: int, end: int, prot: int = 3) -> m.vma_entry:
    status = AREA_REGULAR | ANON_PRIVATE
    return m.vma_entry(start=start, end=end, pgoff=0, shmid=0, prot=prot, flags=0x22, status=status, fd=-1)


def test_a_mapping_that_has_grown_is_kept_and_another_protection_is_not() -> None:
    calls: list[inherited.Call] = []
    parent = [_entry(0x1000, 0x3000), _entry(0x8000, 0x9000)]
    found = inherited.keep(parent, [_entry(0x1000, 0x5000), _entry(0x8000, 0x9000, prot=1)], calls)
    assert found.kept == [(0x1000, 0x3000, 0)]
    assert [entry.start for entry in found.made] == [0x8000]
    assert [call[1:] for call in calls] == [(0x8000, 0x1000), (0x1000, 0x2000, 0x4000, 0)]


def test_what_is_scanned_between_mappings_is_left_out() -> None:
    vmas = [Vma(start, start + 0x2000, 3, False, 0, 0, 0, "") for start in (0x1000, 0x5000, 0x7000)]
    found = list(contents._within([(0x2000, 0x6000, 8), (0x8000, 0xA000, 8)], vmas))
    assert [(start, end) for _, start, end, _ in found] == [(0x2000, 0x3000), (0x5000, 0x6000), (0x8000, 0x9000)]


def test_large_mappings_without_a_file_are_looked_through_by_themselves() -> None:
    """Of whose pages less need be told: all others go together, as far as they are near."""
    large = contents._LARGE
    sizes = [(0x2000, 0), (0x3000, 7), (large, 0), (large * 2, 0), (large, 7), (0x1000, 0), (1 << 30, 7), (large, 0)]
    vmas, at = [], 0x1000
    for size, inode in sizes:
        vmas.append(Vma(at, at + size, 3, False, 0, 0, inode, ""))
        at += size
    groups = [[vmas.index(vma) for vma in group] for group in contents._neighbours(vmas)]
    assert groups == [[0, 1], [2, 3], [4, 5, 6], [7]]
    far = Vma(at + contents._GAP + 1, at + contents._GAP + 1 + large, 3, False, 0, 0, 0, "")
    assert [len(group) for group in contents._neighbours([vmas[-1], far])] == [1, 1]


def test_what_is_left_out_is_cut_out() -> None:
    extents = [(0, 4, 100), (6, 9, 200), (10, 12, 300)]
    assert contents.without(extents, []) == extents
    assert contents.without(extents, [(1, 2), (3, 7)]) == [(0, 1, 100), (2, 3, 102), (7, 9, 201), (10, 12, 300)]
    assert contents.without(extents, [(0, 10), (11, 20)]) == [(10, 11, 300)]
    assert contents.without(extents, [(0, 10), (2, 3)]) == [(10, 12, 300)], "one in the other"


def test_zeroes_are_written_only_where_new_memory_has_none() -> None:
    """Over a file's pages that a mapping of its own shows, and not into empty memory."""
    store = MemStore()
    runs = [PageRun(0x1000, 1, PE_PRESENT), PageRun(0x2000, 1 << 40, 0)]
    store_pagemap(store, 7, 1, runs)
    store.images["pages-1.img"] = bytearray(PAGE)
    mm = m.mm_entry(vmas=[_entry(0x1000, 0x10000), _entry(0x20000, 0x1 << 40)])
    mm.vmas[1].start = 0x24000
    with open_contents(store, 7) as found:
        zeroes = found.extents[1]
        written = space._written(found.extents, mm.vmas)
    assert found.is_zero(zeroes) and not found.is_zero(found.extents[0])
    assert [(start, end) for start, end, _ in written] == [
        (0x1000, 0x2000), (0x10000, 0x24000), (1 << 40, 0x2000 + (PAGE << 40)),
    ]  # fmt: skip
    assert all(found.is_zero(extent) for extent in written[1:])
