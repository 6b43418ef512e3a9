"""Vast mappings of which little is touched, also where the kernel does not go from page to page."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

import torpor
from harness.flavours import Flavour, start, workload_test
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.images.pagemap import load_pagemap
from torpor.images.stores.directory import DirStore
from torpor.kernel.pagemap import PagemapScanner
from torpor.kernel.procfs.maps import read_smaps

pytestmark = pytest.mark.root
test_sparse = workload_test("sparse")

#: Three terabytes have a hundred times as many.
_MOST_WORDS = (8 << 30) // 4096


@pytest.fixture(name="n_words")
def _n_words(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A kernel without PAGEMAP_SCAN, and how many words of pagemap are read."""
    found: list[int] = []
    read = PagemapScanner._read_words

    def scan(self: PagemapScanner, *args: int) -> Iterator[tuple[int, int, int]]:
        raise OSError(errno.ENOTTY, "no such request")

    def count(self: PagemapScanner, begin: int, end: int) -> Iterator[tuple[int, memoryview]]:
        found.append((end - begin) // 4096)
        return read(self, begin, end)

    monkeypatch.setattr(PagemapScanner, "_iter_scan", scan)
    monkeypatch.setattr(PagemapScanner, "_read_words", count)
    return found


def _mappings(workload: Workload) -> list[tuple[int, int, frozenset[str]]]:
    return [(vma.start, vma.end, vma.flags) for vma in read_smaps(Pid(workload.pid)) if vma.name != "[stack]"]


@pytest.mark.parametrize("snapshot", ["never", "always"])
def test_holes_are_found_without_a_scan(n_words: list[int], tmp_path: Path, snapshot: str) -> None:
    with start(Flavour.HOST, "sparse") as workload:
        workload.wait_ready()
        before = _mappings(workload)
        torpor.dump(workload.pid, tmp_path, leave_running=True, snapshot=snapshot)
        assert 0 < sum(n_words) < _MOST_WORDS
        # Nothing is left of what it was cut into, and of the advice.
        assert _mappings(workload) == before
        with DirStore(tmp_path, "r") as store:
            runs = load_pagemap(store, workload.pid, page_bytes=4096).runs
        large = [vma for vma in before if vma[1] - vma[0] > 1 << 38]
        assert sum(run.n_pages for run in runs if any(first <= run.vaddr < end for first, end, _ in large)) == 14
        workload.dump()
        workload.restore()
        workload.expect_pass()
