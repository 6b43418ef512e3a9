"""Huge pages, reserved for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.skips import missing

_RESERVE = Path("/proc/sys/vm/nr_hugepages")


@contextmanager
def reserved(n_pages: int) -> Iterator[None]:
    """At least *n_pages* of them; the test is skipped where they cannot be had."""
    if not _RESERVE.exists():
        missing("huge pages in this kernel")
    before = int(_RESERVE.read_text())
    try:
        _RESERVE.write_text(str(max(before, n_pages)))
        if int(_RESERVE.read_text()) < n_pages:
            missing(f"{n_pages} huge pages (memory is too fragmented)")
        yield
    finally:
        _RESERVE.write_text(str(before))
