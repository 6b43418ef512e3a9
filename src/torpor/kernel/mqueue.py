"""POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_getsetattr(2).

Names are as the kernel takes them, without the slash that the library wants at their start.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from torpor.base.records import dataclass
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall

_MAGIC = 0x19800202
_attr = struct.Struct("8q")
_STATFS_SIZE = 120


@dataclass(frozen=True, slots=True)
class Attributes:
    """``struct mq_attr``, without the flags of the description."""

    max_messages: int
    message_size: int
    n_messages: int


def is_queue(fd: int) -> bool:
    """Whether the file behind *fd* is a queue."""
    buffer = bytearray(_STATFS_SIZE)
    syscall("fstatfs", nr.fstatfs, fd, address_of(buffer))
    return int.from_bytes(buffer[:8], "little") == _MAGIC


def attributes(fd: int) -> Attributes:
    """Limits, and how many messages there are."""
    buffer = bytearray(_attr.size)
    syscall("mq_getsetattr", nr.mq_getsetattr, fd, 0, address_of(buffer))
    _, max_messages, message_size, n_messages, *_ = _attr.unpack(buffer)
    return Attributes(max_messages, message_size, n_messages)


def open_queue(name: str, flags: int) -> int:
    """A queue that exists."""
    text = bytearray(os.fsencode(name) + b"\0")
    return syscall(f"mq_open /{name}", nr.mq_open, address_of(text), flags | os.O_CLOEXEC)


def create(name: str, max_messages: int, message_size: int) -> int:
    """A queue that does not exist, open for both ways without blocking."""
    text = bytearray(os.fsencode(name) + b"\0")
    wanted = bytearray(_attr.pack(0, max_messages, message_size, 0, 0, 0, 0, 0))
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC
    return syscall(f"mq_open /{name}", nr.mq_open, address_of(text), flags, 0o600, address_of(wanted))


def unlink(name: str) -> None:
    """Take its name away."""
    text = bytearray(os.fsencode(name) + b"\0")
    syscall(f"mq_unlink /{name}", nr.mq_unlink, address_of(text))


def send(fd: int, address: int, length: int, priority: int) -> None:
    """Put in the message at *address*."""
    syscall("mq_timedsend", nr.mq_timedsend, fd, address, length, priority, 0)


def receive(fd: int, address: int, room: int, priority_at: int) -> int:
    """Take out a message to *address*, its priority to *priority_at*; its length."""
    return syscall("mq_timedreceive", nr.mq_timedreceive, fd, address, room, priority_at, 0)


def names_here() -> Sequence[tuple[str, int]]:
    """(name, descriptor of our own that reads and writes) of each queue of the calling thread's ipc namespace."""
    context = mounts.fsopen("mqueue")
    try:
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        root = mounts.fsmount(context, 0)
    finally:
        os.close(context)
    try:
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            names = sorted(os.listdir(listing))
        finally:
            os.close(listing)
        return [(name, os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)) for name in names]
    finally:
        os.close(root)


def reopen(fd: int) -> int:
    """A description of our own, both ways and without blocking, of the queue behind *fd*."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def raise_limit() -> None:
    """As many bytes in queues as we may have."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (hard, hard))
