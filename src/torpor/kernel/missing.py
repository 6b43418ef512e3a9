"""userfaultfd(2) as it gives memory its pages: whoever touches one that is missing waits until somebody brings it.

Whoever holds the descriptor is told of faults, and of what becomes of the memory meanwhile: fork(2), mremap(2),
munmap(2), madvise(2).  When the last descriptor is closed nobody waits any more, and what is missing is zeroes.
userfaultfd(2), ioctl_userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.userfaultfd import (
    UFFD_API,
    UFFD_EVENT_FORK,
    UFFD_EVENT_PAGEFAULT,
    UFFD_EVENT_REMAP,
    UFFD_EVENT_REMOVE,
    UFFD_EVENT_UNMAP,
    UFFD_FEATURE_EVENT_FORK,
    UFFD_FEATURE_EVENT_REMAP,
    UFFD_FEATURE_EVENT_REMOVE,
    UFFD_FEATURE_EVENT_UNMAP,
    UFFD_FEATURE_POISON,
    UFFDIO_API,
    UFFDIO_COPY,
    UFFDIO_POISON,
    UFFDIO_REGISTER,
    UFFDIO_REGISTER_MODE_MISSING,
    UFFDIO_WAKE,
    UFFDIO_ZEROPAGE,
)

#: For userfaultfd(2): faults of the kernel's are handled as well, and reading does not wait for a message.
FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_WANTED = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP
_MESSAGE = struct.Struct("=B7xQQQ")
_N_MESSAGES = 64
API = struct.Struct("=3Q")
_REGISTER = struct.Struct("=4Q")
_COPY = struct.Struct("=QQQQq")
_ZERO = struct.Struct("=QQQq")
_RANGE = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Fault:
    """Somebody waits for the page in which ``address`` lies."""

    address: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The memory has been copied; ``fd`` is the descriptor, ours, of the copy."""

    fd: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Memory lies elsewhere now."""

    start: int
    to: int
    length: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was there is gone; if there is memory again, it is zeroes."""

    start: int
    end: int


Event = Fault | Forked | Moved | Dropped


class Gone(Exception):
    """The address space is: its processes have ended, or become other programs."""


class Changing(Exception):
    """The memory is just being changed, of which an event tells: read it, and try again."""


def is_there() -> bool:
    """Whether this kernel has it, for us."""
    try:
        with OwnedFd(syscall("userfaultfd", nr.userfaultfd, FLAGS)) as fd:
            begin(fd.fileno())
    except OSError:
        return False
    return True


def can_poison() -> bool:
    """Whether this kernel has UFFDIO_POISON (Linux 6.6).  OSError."""
    with OwnedFd(syscall("userfaultfd", nr.userfaultfd, FLAGS)) as fd:
        answer = fcntl.ioctl(fd.fileno(), UFFDIO_API, API.pack(UFFD_API, 0, 0))
    return bool(API.unpack(answer)[1] & UFFD_FEATURE_POISON)


def begin(fd: int) -> None:
    """Ask a new one (made with FLAGS, in whatever process) for what is needed; OSError where it has not got it."""
    fcntl.ioctl(fd, UFFDIO_API, API.pack(UFFD_API, _WANTED, 0))


def register(fd: int, start: int, length: int) -> None:
    """Have whoever touches a missing page of a private anonymous mapping wait for it.  OSError."""
    fcntl.ioctl(fd, UFFDIO_REGISTER, _REGISTER.pack(start, length, UFFDIO_REGISTER_MODE_MISSING, 0))


def read_events(fd: int) -> Iterator[Event]:
    """What has happened; nothing more if nothing has."""
    try:
        data = os.read(fd, _N_MESSAGES * _MESSAGE.size)
    except BlockingIOError:
        return
    for at in range(0, len(data), _MESSAGE.size):
        event, first, second, third = _MESSAGE.unpack_from(data, at)
        if event == UFFD_EVENT_PAGEFAULT:
            yield Fault(second)
        elif event == UFFD_EVENT_FORK:
            yield Forked(first & 0xFFFFFFFF)
        elif event == UFFD_EVENT_REMAP:
            yield Moved(first, second, third)
        elif event in (UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP):
            yield Dropped(first, second)


def copy(fd: int, to: int, content: memoryview) -> int:
    """Bring pages, and wake whoever waits for them; how many bytes of them, 0 where the first is there already.

    Gone, Changing; OSError, with ENOENT for addresses that lie in no one mapping that is registered.
    """
    question = bytearray(_COPY.pack(to, address_of(content), content.nbytes, 0, 0))
    return _bring("UFFDIO_COPY", fd, UFFDIO_COPY, question, content.nbytes)


def zero(fd: int, start: int, length: int) -> int:
    """The same with pages of zeroes."""
    return _bring("UFFDIO_ZEROPAGE", fd, UFFDIO_ZEROPAGE, bytearray(_ZERO.pack(start, length, 0, 0)), length)


def poison(fd: int, start: int, length: int) -> int:
    """Pages that whoever touches them dies of (SIGBUS), as of memory that has failed; since 6.6."""
    return _bring("UFFDIO_POISON", fd, UFFDIO_POISON, bytearray(_ZERO.pack(start, length, 0, 0)), length)


def _bring(name: str, fd: int, request: int, question: bytearray, wanted: int) -> int:
    try:
        syscall(name, nr.ioctl, fd, request, address_of(question))
    except OSError as error:
        done = int.from_bytes(question[-8:], "little", signed=True)
        if done > 0:
            return done
        if error.errno in (errno.ESRCH, errno.ENOSPC):
            raise Gone from None
        if error.errno == errno.EAGAIN:
            raise Changing from None
        if error.errno == errno.EEXIST:
            return 0
        raise
    return wanted


def wake(fd: int, start: int, length: int) -> None:
    """Have whoever waits for these pages look again."""
    try:
        fcntl.ioctl(fd, UFFDIO_WAKE, _RANGE.pack(start, length))
    except OSError:
        return  # nobody is there
