"""What a tree writes from one look at it to the next, so that only that need be copied again.

Kernel view
    A userfaultfd of each address space, in asynchronous write-protect mode, over all of its private mappings;
    PAGEMAP_SCAN tells which of the protected pages have been written since, and protects them again (6.7).
Dump
    The descriptor is made inside the task by one batch, taken while that waits, and closed there by the same batch,
    which goes on by itself should we die.  Whoever holds it is the owner: when it is closed, all protection is gone.
Image
    None of its own: a page that was not written since is one that the parent's page map has (``PE_PARENT``).
Restore
    Nothing: what was tracked is not tracked any more.
Limits
    A mapping that is new, or was moved by mremap, or a task that was forked or became another program, is looked at as
    a whole once and is known from then on.  So is memory that belongs to another userfaultfd, huge pages of hugetlbfs,
    or memory of a task with asynchronous I/O, into whose pages the kernel writes unseen, but each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import KernelError, TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.base.records import replace
from torpor.images.pages import Range
from torpor.kernel import userfaultfd
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd
from torpor.kernel.procfs.maps import Vma
from torpor.objects.memory import room
from torpor.objects.memory.contents import Noted
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import inject

#: VmFlags of memory that a userfaultfd has protected.
_PROTECTED = frozenset(("uw",))
_AT_ONCE = 1 << 20
_NOTHING = Noted(frozenset(), frozenset())


class Tracked(Closing):
    """One address space whose writes are noted: that of *pid*, which started at *start_time*.  Owns *fd*."""

    def __init__(self, pid: Pid, start_time: int, fd: OwnedFd) -> None:
        self.pid, self.start_time = pid, start_time
        self.fd = fd

    @classmethod
    def begin(cls, process: DumpProcess, context: DumpContext) -> Tracked:
        """Begin with a stopped process; nothing of it is noted yet.

        TorporError or OSError where it cannot be: its descriptors are used up, or the kernel has no such thing.
        """
        with room.made(process, context), inject(
            process.tracee.leader, process.maps, process.leftovers, pending=process.pending
        ) as injection, injection.borrow(process.tracee.leader) as runner:  # fmt: skip
            batch = Batch()
            made = batch.call(nr.userfaultfd, userfaultfd.FLAGS)
            batch.call(nr.tkill, batch.call(nr.gettid), runner.stop_signal)
            batch.call(nr.close, made)
            taken: list[int] = []

            def take(results: list[int]) -> None:
                if not taken and results[0] >= 0:
                    assert process.pidfd is not None
                    taken.append(getfd(process.pidfd.fileno(), results[0]))

            runner.run_pausing(batch, take)
        if not taken:
            raise TorporError(f"the userfaultfd of {process.describe()} could not be taken")
        fd = OwnedFd(taken[0])
        try:
            userfaultfd.begin(taken[0])
        except BaseException:
            fd.close()
            raise
        return cls(process.pid, process.stat.start_time, fd)

    def note(self, maps: Iterable[Vma], *, protect: bool) -> Noted:
        """Which of *maps*, all mappings of the stopped process, have been noted; with *protect*, more are from now on.

        What is ours of their flags is taken off them.  ``userfaultfd.Gone``: the process is another program by now.
        """
        since, ours = set(), set()
        for vma in maps:
            was = not _PROTECTED.isdisjoint(vma.flags)
            if not was and (not protect or not _can_be_noted(vma)):
                continue
            try:
                if not userfaultfd.register(self.fd.fileno(), vma.start, vma.length):
                    continue
            except userfaultfd.Foreign:
                continue
            if was:
                since.add(vma.start)
                vma.flags -= _PROTECTED
            if protect:
                ours.add(vma.start)
        return Noted(frozenset(since), frozenset(ours))

    def close(self) -> None:
        """Nothing is noted any more, and nothing protected."""
        self.fd.close()


class Tracker(Closing):
    """What is known of a tree's writes: its address spaces, and the set of images that has all that was there before.

    Made empty; a pre-dump fills it (``DumpOptions.tracker``), each that follows, and the dump, copies what has been
    written since the one before, and says of all else that the images before have it.  It lives as long as its maker
    keeps it: between two commands it is kept by a process (:mod:`torpor.tracee.keeper`).

    ``ident`` is the set that what was noted is newer than; "" while there is none that is complete, after a dump that
    failed for instance, and then the next one copies everything.  ``held``: of each process's pages, those that the set
    has, itself or in its parents.  ``maps``: the mappings of each process at the last look, with the flags that they
    have had since; ``flags_s``: when these had been read, by time.monotonic(), where that was while they ran.
    """

    def __init__(self) -> None:
        self.spaces: dict[Pid, Tracked] = {}
        self.ident = ""
        self.held: dict[TreePid, list[Range]] = {}
        self._room: OwnedFd | None = None
        self.maps: dict[Pid, list[Vma]] = {}
        self.flags_s: dict[Pid, float] = {}

    def follow(self, processes: Iterable[DumpProcess], context: DumpContext, *, protect: bool) -> dict[Pid, Noted]:
        """What is known of each of the stopped *processes*; with *protect* all of them are followed from now on."""
        found: dict[Pid, Noted] = {}
        seen: dict[int, Pid] = {}
        for process in processes:
            other = seen.setdefault(process.ids.vm_id, process.pid)
            if other != process.pid:
                # The same memory, of which the other has told: copied as a whole here.
                found[process.pid] = _NOTHING
                if other in self.spaces:
                    self.spaces[other].note(process.maps, protect=False)
                continue
            noted = self._follow(process, context, protect=protect)
            if noted is not None:
                found[process.pid] = noted
        if protect:
            for pid in self.spaces.keys() - found.keys():
                self.spaces.pop(pid).close()
        return found

    def _follow(self, process: DumpProcess, context: DumpContext, *, protect: bool) -> Noted | None:
        tracked = self.spaces.get(process.pid)
        if tracked is not None and tracked.start_time != process.stat.start_time:
            self.spaces.pop(process.pid).close()
            tracked = None
        if any(vma.is_aio_ring for vma in process.maps):
            log.info(f"{process.describe()} does asynchronous I/O: its memory is copied as a whole")
            if tracked is not None:
                tracked.note(process.maps, protect=False)  # the flags are no stranger's
                self.spaces.pop(process.pid).close()
            return None
        if tracked is not None:
            try:
                return tracked.note(process.maps, protect=protect)
            except userfaultfd.Gone:
                self.spaces.pop(process.pid).close()
        if not protect:
            return None
        try:
            tracked = self.spaces[process.pid] = Tracked.begin(process, context)
            return tracked.note(process.maps, protect=True)
        except (KernelError, TorporError, OSError) as error:
            log.warn(f"writes of {process.describe()} cannot be noted, its memory will be copied as a whole: {error}")
            return None

    def make_room(self, directory: str | os.PathLike[str], n_bytes: int) -> None:
        """Have a file without a name in *directory*, and so much memory for it at hand: to find that while the tree is
        stopped takes longer than to write to it.  Nothing where there are no such files, or no room.
        """
        with suppress(OSError):
            made = OwnedFd(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
            try:
                zeroes = bytes(min(n_bytes, _AT_ONCE))
                for at in range(0, n_bytes, _AT_ONCE):
                    os.pwrite(made.fileno(), zeroes, at)
            except OSError:
                made.close()
                raise
            self._room = made

    def take_room(self) -> OwnedFd | None:
        """That file, which becomes the caller's, once."""
        room, self._room = self._room, None
        return room

    def look_back(self, process: DumpProcess, noted: Noted) -> None:
        """Remember the mappings of *process*, which has just been followed."""
        self.maps[process.pid] = [
            replace(vma, flags=vma.flags | _PROTECTED) if vma.start in noted.protected else vma for vma in process.maps
        ]

    def forget_flags(self) -> None:
        """The next round reads them anew, and the dump after it, if that comes soon, need not."""
        self.maps.clear()

    def close(self) -> None:
        """Nothing is noted any more."""
        for tracked in self.spaces.values():
            tracked.close()
        if (room := self.take_room()) is not None:
            room.close()
        self.spaces.clear()
        self.ident = ""


def _can_be_noted(vma: Vma) -> bool:
    """Private memory, but for huge pages of hugetlbfs: one that is dropped, and read, passes for the old one."""
    return not vma.shared and not (vma.is_vdso or vma.is_vvar or vma.is_vsyscall or "ht" in vma.flags)
