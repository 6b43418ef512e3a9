"""What only a try can tell of an eventfd, eventfd(2).  The counter is what it was when it has been told."""

from __future__ import annotations

import errno
import os


def set_count(fd: int, count: int) -> None:
    """Have the counter say *count*, whatever it says now; descriptors are of our own process."""
    now = _read_count(fd)
    while now > count and _take(fd):
        now = _read_count(fd)
    if now < count:
        os.eventfd_write(fd, count - now)


def is_semaphore(fd: int, count: int) -> bool:
    """Whether a read takes one and not all, where the kernel does not say so (fdinfo, since 6.5).

    *count* is what the counter says.  Who dies in here leaves another: have somebody call ``set_count`` then.
    """
    if count < 2:
        os.eventfd_write(fd, 2)
    try:
        return _take(fd) == 1
    finally:
        set_count(fd, count)


def _take(fd: int) -> int:
    """What a read gives; 0 where it would wait, whether or not the descriptor is one that does."""
    value = bytearray(8)
    try:
        os.preadv(fd, [value], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    return int.from_bytes(value, "little")


def _read_count(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line[14:], 16) for line in file if line.startswith(b"eventfd-count:"))
