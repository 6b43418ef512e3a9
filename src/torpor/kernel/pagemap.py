"""PAGEMAP_SCAN: which pages of an address space hold something (``/proc/PID/pagemap``).

Source: Documentation/admin-guide/mm/pagemap.rst; in the kernel since 6.7.  Before that the 64-bit words of pagemap are
read and say the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from torpor.kernel.syscall import address_of
from torpor.kernel.vm import PAGE_SIZE

PAGE_IS_WPALLOWED = 1 << 0
PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_HUGE = 1 << 6
PAGE_IS_SOFT_DIRTY = 1 << 7
PAGE_IS_GUARD = 1 << 8

_PAGEMAP_SCAN = 0xC0606610
_PM_SCAN_WP_MATCHING = 1
_SCAN_ARG = struct.Struct("12Q")
_REGION_SIZE = 24
_MAX_REGIONS = 4096

_WORDS_AT_ONCE = 128 * 1024
_EMPTY = bytes(_WORDS_AT_ONCE * 8)
#: Bytes of words that are looked at as one: what one page table covers.
_STRETCH = 512 * 8

_PM_FILE = 1 << 61
_PM_SWAP = 1 << 62
_PM_PRESENT = 1 << 63
_PM_GUARD = 1 << 58


class PagemapScanner:
    """Walks one task's page tables.  Owns nothing: *fd* is the caller's open ``/proc/PID/pagemap``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._regions = bytearray(_REGION_SIZE * _MAX_REGIONS)
        self._have_scan = True

    def can_tell_written(self) -> bool:
        """Whether ``iter_written`` works here."""
        try:
            return not list(self.iter_written(0, PAGE_SIZE, protect=False))
        except OSError:
            return False

    def iter_written(
        self, start: int, end: int, *, protect: bool, files: bool = True
    ) -> Iterator[tuple[int, int, int]]:
        """As ``iter_ranges``, and of mappings whose writes a userfaultfd notes PAGE_IS_WPALLOWED holds as well, and
        PAGE_IS_WRITTEN of what has been written since it was protected.

        *protect*: all of these are protected (again) by the same call, page by page: a write is told by this one or by
        the next.  OSError where the kernel has no PAGEMAP_SCAN.
        """
        more = PAGE_IS_WRITTEN | PAGE_IS_WPALLOWED | (PAGE_IS_FILE if files else 0)
        return self._iter_scan(start, end, more, _PM_SCAN_WP_MATCHING if protect else 0)

    def iter_ranges(self, start: int, end: int, *, files: bool = True) -> Iterator[tuple[int, int, int]]:
        """``(start, end, categories)`` of the populated (present or swapped) ranges between two addresses.

        Categories are those of PAGE_IS_FILE, PRESENT, SWAPPED, PFNZERO and GUARD that hold.  Guard pages are reported
        where the kernel can tell (6.15) although they are neither present nor swapped.

        Without *files* PAGE_IS_FILE may be left out.  It alone is not said by page tables: the kernel looks at the page
        itself for it (pagemap_page_category), which takes most of the time.
        """
        if self._have_scan:
            try:
                yield from self._iter_scan(start, end, PAGE_IS_FILE if files else 0)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                self._have_scan = False
        yield from self._iter_words(start, end)

    def skips_holes(self) -> bool:
        """Whether the kernel goes from one page that is there to the next: without PAGEMAP_SCAN each word is read."""
        list(self.iter_ranges(0, PAGE_SIZE))
        return self._have_scan

    _guard = PAGE_IS_GUARD

    def _iter_scan(self, start: int, end: int, more: int = 0, flags: int = 0) -> Iterator[tuple[int, int, int]]:
        any_of = PAGE_IS_PRESENT | PAGE_IS_SWAPPED
        returned = any_of | PAGE_IS_PFNZERO | more
        while start < end:
            arg = bytearray(
                _SCAN_ARG.pack(
                    *(_SCAN_ARG.size, flags, start, end, 0, address_of(self._regions), _MAX_REGIONS, 0),
                    *(0, 0, any_of | self._guard, returned | self._guard),
                )
            )
            try:
                count = fcntl.ioctl(self._fd, _PAGEMAP_SCAN, arg, True)
            except OSError as error:
                if error.errno == errno.EINVAL and self._guard:
                    self._guard = 0  # before 6.15
                    continue
                raise
            regions = struct.unpack_from(f"{count * 3}Q", self._regions)
            for index in range(0, len(regions), 3):
                yield regions[index], regions[index + 1], regions[index + 2]
            if count < _MAX_REGIONS:
                return
            # Where it has stopped; seen (6.18): not always the last time, but an earlier one in the same call, when its
            # own buffer of 512 regions was full.
            start = max(struct.unpack_from("Q", arg, 32)[0], regions[-2])

    def _iter_words(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        run_start, run_kind = start, 0
        for address, words in self._read_words(start, end):
            for index, word in enumerate(words):
                kind = _kind_of(word)
                if kind != run_kind:
                    if run_kind:
                        yield run_start, address + index * PAGE_SIZE, run_kind
                    run_start, run_kind = address + index * PAGE_SIZE, kind
        if run_kind:
            yield run_start, end, run_kind

    def _read_words(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """The words, and the address of the first of them.  Of an empty stretch only the first is given.

        A terabyte that nobody has touched has 268 million of them.
        """
        for base in range(start, end, _WORDS_AT_ONCE * PAGE_SIZE):
            n_pages = min(_WORDS_AT_ONCE, (end - base) // PAGE_SIZE)
            data = os.pread(self._fd, n_pages * 8, base // PAGE_SIZE * 8)
            if data == _EMPTY[: len(data)]:
                yield base, memoryview(data[:8]).cast("Q")
                continue
            for at in range(0, len(data), _STRETCH):
                stretch = data[at : at + _STRETCH]
                is_empty = stretch == _EMPTY[: len(stretch)]
                yield base + at // 8 * PAGE_SIZE, memoryview(stretch[:8] if is_empty else stretch).cast("Q")


def _kind_of(word: int) -> int:
    if word & _PM_PRESENT:
        return PAGE_IS_PRESENT | (PAGE_IS_FILE if word & _PM_FILE else 0)
    if word & _PM_GUARD:
        return PAGE_IS_GUARD
    if word & _PM_SWAP:
        return PAGE_IS_SWAPPED
    return 0
