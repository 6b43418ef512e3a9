"""Huge pages, reserved for the time of a test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.events import time_limit_s
from harness.skips import missing
from harness.turns import turn_at

_RESERVE = Path("/proc/sys/vm/nr_hugepages")
_COMPACT = Path("/proc/sys/vm/compact_memory")


@contextmanager
def reserved(n_pages: int) -> Iterator[None]:
    """At least *n_pages* of them; the test is skipped where they cannot be had.

    The machine has one number for all of its tests: who comes second waits until the first has put it back.
    """
    if not _RESERVE.exists():
        missing("huge pages in this kernel")
    with turn_at(_RESERVE):
        before = int(_RESERVE.read_text())
        try:
            if not _reserve(max(before, n_pages)):
                missing(f"{n_pages} huge pages (memory is too fragmented)")
            yield
        finally:
            _RESERVE.write_text(str(before))


def _reserve(n_pages: int) -> bool:
    """Whether there are so many; what others use of memory at this moment may be in the way, and moved out of it."""
    deadline = time.monotonic() + time_limit_s(10)
    while True:
        _RESERVE.write_text(str(n_pages))
        if int(_RESERVE.read_text()) >= n_pages:
            return True
        if time.monotonic() > deadline or not _COMPACT.exists():
            return False
        _COMPACT.write_text("1")
