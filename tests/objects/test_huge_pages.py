"""Huge pages are reserved for the time of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.flavours import workload_test
from harness.skips import missing

_RESERVE = Path("/proc/sys/vm/nr_hugepages")
_NEEDED = 12


@pytest.fixture(autouse=True)
def huge_pages() -> Iterator[None]:
    if not _RESERVE.exists():
        missing("huge pages in this kernel")
    before = int(_RESERVE.read_text())
    _RESERVE.write_text(str(max(before, _NEEDED)))
    if int(_RESERVE.read_text()) < _NEEDED:
        missing(f"{_NEEDED} huge pages (memory is too fragmented)")
    yield
    _RESERVE.write_text(str(before))


test_huge_pages = workload_test("huge_pages")
