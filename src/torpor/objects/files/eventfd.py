"""eventfd(2): a counter behind a descriptor.

Kernel view
    ``eventfd-count`` (hexadecimal) and ``eventfd-semaphore`` (since Linux 6.5) in fdinfo.  Before that only a read
    tells a semaphore, which is taken back at once, while the tree stands still.
Image
    ``eventfd_file_entry``; ``torpor_semaphore`` for EFD_SEMAPHORE, which CRIU does not know.
Restore
    ``eventfd2``, then a write for what its 32-bit argument cannot say.
Limits
    Before Linux 6.5 a process outside that has the eventfd as well, and polls it, may be woken for nothing by the dump.
"""

from __future__ import annotations

import os

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import eventfd
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee import caretaker

_LINK = "anon_inode:[eventfd]"
_MAX_INITIAL = (1 << 32) - 1
_MAX_COUNTER = (1 << 64) - 2


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target == _LINK


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.efd``: the counter, and whether it is a semaphore.  RefusedError where it has overflowed."""
    efd = entry.efd
    efd.id, efd.flags = entry.id, file.flags
    fown.fill(efd.fown, file)
    efd.counter = int(file.info("eventfd-count"), 16)
    if efd.counter > _MAX_COUNTER:
        raise file.refuse("the eventfd's counter has overflowed", hint="read it, then try again")
    try:
        efd.torpor_semaphore = int(file.info("eventfd-semaphore")) != 0
    except KeyError:
        efd.torpor_semaphore = _ask(file.fd, efd.counter, context)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A new eventfd with the counter."""
    efd = entry.efd
    if efd.counter > _MAX_COUNTER:
        raise ImageError(f"eventfd {entry.id}: a counter cannot be {efd.counter:#x}")
    kind = os.EFD_SEMAPHORE if efd.torpor_semaphore else 0
    initial = min(efd.counter, _MAX_INITIAL)
    fd = os.eventfd(initial, kind | os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    if efd.counter > initial:
        os.eventfd_write(fd, efd.counter - initial)
    os.set_blocking(fd, True)
    status_flags.restore(fd, efd.flags)
    return fd


def _ask(fd: int, count: int, context: DumpContext) -> bool:
    keeper = context.outside.caretaker
    keys = keeper.add([caretaker.count(fd, count)])
    try:
        with keeper.ahead():
            return eventfd.is_semaphore(fd, count)
    finally:
        keeper.drop(keys)


KIND = FileKind("eventfd", m.fd_types.EVENTFD, matches, dump, restore)
