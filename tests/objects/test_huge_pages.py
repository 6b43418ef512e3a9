"""Huge pages are reserved for the time of the test."""

from collections.abc import Iterator

import pytest

from harness import huge_pages
from harness.flavours import workload_test

_NEEDED = 12


@pytest.fixture(autouse=True)
def pages() -> Iterator[None]:
    with huge_pages.reserved(_NEEDED):
        yield


test_huge_pages = workload_test("huge_pages")
