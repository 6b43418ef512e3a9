"""Images that have been read for the last time: their pages become free, for what is filled from them to take."""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.vm import PAGE_SIZE

#: FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
_PUNCH_HOLE = 3


def give_back(fd: int, start: int, n_bytes: int) -> None:
    """Of a file, what has been read from *start*: whoever is being filled takes the pages, warm as they are."""
    first, end = -(-start // PAGE_SIZE) * PAGE_SIZE, (start + n_bytes) // PAGE_SIZE * PAGE_SIZE
    if first < end:
        syscall("fallocate", nr.fallocate, fd, _PUNCH_HOLE, first, end - first)
