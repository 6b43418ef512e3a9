"""Shared memory without a name: the kernel's own tmpfs mount, and shared anonymous mappings as files.

Source: mm/shmem.c.  memfd_create, MAP_SHARED|MAP_ANONYMOUS, a shared mapping of /dev/zero and System V segments are all
inodes of one mount that nobody sees.
"""

from __future__ import annotations

import mmap
import os
from functools import cache

from torpor.kernel.syscall import address_of
from torpor.kernel.vm import PAGE_SIZE


@cache
def internal_device() -> int:
    """``st_dev`` of the mount."""
    fd = os.memfd_create("torpor", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def create_anonymous(size: int, flags: int = 0) -> int:
    """A descriptor of new shared anonymous memory of *size* bytes, which maps show as such, not as a memfd.

    *flags* are further MAP_* (MAP_NORESERVE, MAP_HUGETLB).  OSError where map_files may not be used
    (CAP_CHECKPOINT_RESTORE) or there is no such memory.
    """
    length = (size + PAGE_SIZE - 1) & -PAGE_SIZE
    memory = mmap.mmap(-1, length, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | flags)
    with memory:
        with memoryview(memory) as view:
            start = address_of(view)
        return os.open(f"/proc/self/map_files/{start:x}-{start + length:x}", os.O_RDWR | os.O_CLOEXEC)
