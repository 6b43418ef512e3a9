"""Pages that come after the restore: memory is registered with a userfaultfd, which goes to whoever brings them.

Kernel view
    userfaultfd(2), for pages that are missing; made inside the puppet, fetched by pidfd_getfd(2), and closed there.
Image
    Runs with PE_LAZY in the page map, whether their pages are present or with a page server.
Restore
    What is not PE_LAZY is written as ever.  The other mappings are registered before the puppet does anything that
    may touch them (threads with their rseq area): a page that the kernel itself has made would be taken for one that
    is there.  For the same reason no huge pages are made while memory is written.
Limits
    Private anonymous memory that is neither locked nor huge.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from torpor.base.errors import NotPermittedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import TreePid
from torpor.base.typed import Protocol
from torpor.images import messages as m
from torpor.images.pages import Range
from torpor.kernel import missing
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.uapi.prctl import PR_SET_THP_DISABLE
from torpor.objects.memory.vmas import can_wait
from torpor.objects.model import RestoreProcess
from torpor.objects.session import RestoreContext
from torpor.tracee.batch import Batch, RemoteCallError

_DEVICE = "/dev/userfaultfd"
_USERFAULTFD_IOC_NEW = 0xAA00


class Later(Protocol):
    """Who brings the pages: told of each process once, and of the end."""

    def begin(self, pid: TreePid, faults: OwnedFd) -> None:
        """Of this process pages are missing; *faults*, the callee's, tells of who waits for them."""

    def nothing(self, pid: TreePid) -> None:
        """Of this one none are: it is dead, or shares another's memory."""

    def restored(self) -> None:
        """All run: what nobody has waited for may come too."""


def areas(entries: Iterable[m.vma_entry], lazy: Sequence[Range]) -> list[Range]:
    """The mappings in which something is missing."""
    found = []
    rest = iter(lazy)
    late = next(rest, None)
    for entry in entries:
        while late is not None and late[1] <= entry.start:
            late = next(rest, None)
        if late is None:
            break
        if late[0] < entry.end and can_wait(entry):
            found.append((entry.start, entry.end))
    return found


def clipped(lazy: Iterable[Range], places: Iterable[Range]) -> list[Range]:
    """The parts of ranges that lie in *places*, cut where one of these ends."""
    found = []
    rest = iter(places)
    place = next(rest, None)
    for start, end in lazy:
        while place is not None and place[0] < end:
            first, last = max(start, place[0]), min(end, place[1])
            if first < last:
                found.append((first, last))
            if place[1] > end:
                break
            place = next(rest, None)
    return found


def without_huge_pages(process: RestoreProcess) -> None:
    """None are made in the puppet, nor in those that are cloned from it, until ``begin``."""
    batch = Batch()
    batch.call(nr.prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0)
    process.runner.run(batch)


def register(process: RestoreProcess, places: Iterable[Range], context: RestoreContext) -> OwnedFd:
    """Have whoever touches what is missing in the puppet wait; what tells of it.  RestoreError, NotPermittedError."""
    faults = _make(process, context)
    try:
        missing.begin(faults.fileno())
        for start, end in places:
            missing.register(faults.fileno(), start, end - start)
    except OSError as error:
        faults.close()
        raise RestoreError(
            f"memory of pid {process.ns_pid} cannot come later: userfaultfd: {error.strerror}",
            hint="restore without --lazy-pages",
        ) from error
    return faults


def _make(process: RestoreProcess, context: RestoreContext) -> OwnedFd:
    """A userfaultfd of the puppet's memory, here."""
    batch = Batch()
    try:
        made = batch.call(nr.userfaultfd, missing.FLAGS)
        process.runner.run(batch)
    except RemoteCallError as error:
        if error.errno != errno.EPERM:
            raise
        return _make_by_device(process, context)
    return _fetch(process, made.value)


def _make_by_device(process: RestoreProcess, context: RestoreContext) -> OwnedFd:
    """In a user namespace the call itself is not permitted; the device asks nobody but its mode."""
    try:
        with OwnedFd(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)) as device:
            number = context.lend(process.runner, [device.fileno()])[0]
    except OSError as error:
        raise NotPermittedError(
            f"{_DEVICE}: {error.strerror}: memory of pid {process.ns_pid} cannot come later",
            hint="sysctl vm.unprivileged_userfaultfd=1, or restore without --lazy-pages",
        ) from error
    batch = Batch()
    made = batch.call(nr.ioctl, number, _USERFAULTFD_IOC_NEW, missing.FLAGS)
    batch.call(nr.close, number)
    process.runner.run(batch)
    return _fetch(process, made.value)


def _fetch(process: RestoreProcess, number: int) -> OwnedFd:
    with OwnedFd(open_pidfd(process.pid)) as pidfd:
        found = OwnedFd(getfd(pidfd.fileno(), number))
    batch = Batch()
    batch.call(nr.close, number)
    process.runner.run(batch)
    return found
