"""The two ways to find out which pages hold something agree, and none looks at every page of what is empty."""

import ctypes
import mmap
import os

import pytest

from torpor.kernel.pagemap import PAGE_IS_FILE, PAGE_IS_PFNZERO, PagemapScanner
from torpor.kernel.uapi.mman import MAP_NORESERVE
from torpor.kernel.vm import PAGE_SIZE


def ranges(scanner: PagemapScanner, start: int, end: int, *, files: bool = True) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for first, behind, kind in scanner.iter_ranges(start, end, files=files):
        if kind & PAGE_IS_PFNZERO:
            continue
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], behind)
        else:
            found.append((first, behind))
    return found


@pytest.mark.parametrize("touched", [(), (0,), (3, 4, 5), (511, 512, 513), (0, 1023, 1024, 40_000, 199_999)])
def test_words_say_what_the_scan_says(touched: tuple[int, ...]) -> None:
    n_pages = 200_000
    with mmap.mmap(-1, n_pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        start = ctypes.addressof(pointed := ctypes.c_char.from_buffer(area))
        for page in touched:
            area[page * PAGE_SIZE] = 1
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            words = PagemapScanner(file.fileno())
            words._have_scan = False
            by_words = ranges(words, start, start + len(area))
            for files in (True, False):
                assert by_words == ranges(PagemapScanner(file.fileno()), start, start + len(area), files=files)
        assert sum(end - first for first, end in by_words) == len(touched) * PAGE_SIZE
        del pointed


@pytest.mark.parametrize("of_file", [True, False])
def test_which_pages_are_a_files_is_told_where_it_is_asked(of_file: bool) -> None:
    with open(__file__, "rb") as file, open("/proc/self/pagemap", "rb", buffering=0) as stream:
        flags = mmap.MAP_PRIVATE | (0 if of_file else mmap.MAP_ANONYMOUS)
        with mmap.mmap(file.fileno() if of_file else -1, PAGE_SIZE, flags) as area:
            start = ctypes.addressof(pointed := ctypes.c_char.from_buffer(area))
            if of_file:
                assert area[0] == file.read(1)[0]
            else:
                area[0] = 1
            scanner = PagemapScanner(stream.fileno())
            kinds = [
                [kind & PAGE_IS_FILE for _, _, kind in scanner.iter_ranges(start, start + PAGE_SIZE, files=files)]
                for files in (True, False)
            ]
            del pointed
    assert kinds[0] == [PAGE_IS_FILE if of_file else 0] and len(kinds[1]) == 1 and (of_file or kinds[1] == [0])


def test_an_empty_stretch_costs_no_time_of_ours() -> None:
    """64 GiB: sixteen million words; looked at one by one they would take a second of this process's own time."""
    size = 64 << 30
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE) as area:
        start = ctypes.addressof(pointed := ctypes.c_char.from_buffer(area))
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            words = PagemapScanner(file.fileno())
            words._have_scan = False
            before = os.times().user
            assert not ranges(words, start, start + size)
            assert os.times().user - before < 0.5
        del pointed


@pytest.mark.parametrize("n_regions", [500, 512, 513, 1500, 4095, 4096, 4097, 5000, 8192])
def test_each_of_many_regions_is_told_once(n_regions: int) -> None:
    with mmap.mmap(-1, (2 * n_regions + 1) * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        for index in range(n_regions):
            area[2 * index * PAGE_SIZE] = 1
        start = ctypes.addressof(pointed := ctypes.c_char.from_buffer(area))
        with open("/proc/self/pagemap", "rb", buffering=0) as stream:
            found = list(PagemapScanner(stream.fileno()).iter_ranges(start, start + len(area)))
        del pointed
    assert [(first, end) for first, end, _ in found] == [
        (start + 2 * index * PAGE_SIZE, start + (2 * index + 1) * PAGE_SIZE) for index in range(n_regions)
    ]
