"""userfaultfd(2) as it is used to learn what is written: asynchronous write protection, in which nobody handles faults.

A page that is protected loses the protection by the first write to it, which the kernel lets happen by itself;
PAGEMAP_SCAN (:mod:`torpor.kernel.pagemap`) tells which have it still, and protects again.  All of it goes when the last
descriptor is closed.  In the kernel since 6.7; Documentation/admin-guide/mm/userfaultfd.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from torpor.base.fds import OwnedFd
from torpor.kernel.arch import nr
from torpor.kernel.pagemap import PagemapScanner
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.userfaultfd import (
    UFFD_API,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    UFFD_FEATURE_WP_ASYNC,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_FEATURE_WP_UNPOPULATED,
    UFFD_USER_MODE_ONLY,
    UFFDIO_API,
    UFFDIO_REGISTER,
    UFFDIO_REGISTER_MODE_WP,
)

#: For userfaultfd(2).  One that handles no faults of the kernel's (UFFD_USER_MODE_ONLY) everybody may make.
FLAGS = os.O_CLOEXEC | UFFD_USER_MODE_ONLY
_WANTED = (
    UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | UFFD_FEATURE_WP_UNPOPULATED
    | UFFD_FEATURE_WP_ASYNC
)


def features() -> int:
    """What this kernel's userfaultfd can do (UFFD_FEATURE_*); OSError where there is none for us."""
    with OwnedFd(syscall("userfaultfd", nr.userfaultfd, FLAGS)) as fd:
        answer = fcntl.ioctl(fd.fileno(), UFFDIO_API, struct.pack("=3Q", UFFD_API, 0, 0))
        return int(struct.unpack("=3Q", answer)[1])


def can_track() -> bool:
    """Whether this kernel tells what has been written."""
    try:
        with OwnedFd(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)) as fd:
            return features() & _WANTED == _WANTED and PagemapScanner(fd.fileno()).can_tell_written()
    except OSError:
        return False


def begin(fd: int) -> None:
    """Ask a new one (made with FLAGS, in whatever process) for what tracking needs; OSError where it has not got it."""
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("=3Q", UFFD_API, _WANTED, 0))


class Foreign(Exception):
    """The memory belongs to another userfaultfd."""


class Gone(Exception):
    """The address space is: its processes have ended, or become other programs."""


def register(fd: int, start: int, length: int) -> bool:
    """Have writes to a mapping noted, again or still; False for what cannot be (a file's own pages, device memory).

    Foreign, Gone.
    """
    try:
        fcntl.ioctl(fd, UFFDIO_REGISTER, struct.pack("=4Q", start, length, UFFDIO_REGISTER_MODE_WP, 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Foreign from None
        if error.errno in (errno.ESRCH, errno.ENOMEM):
            raise Gone from None
        if error.errno in (errno.EINVAL, errno.EPERM):
            return False
        raise
    return True
