"""Mappings of large processes as they are read before a tree is stopped, for the sake of their flags.

smaps alone tells those (advice, locks, and the like), and the kernel looks through all page tables for it: some 20 ms
for each GB.  Once the tree is stopped only what is mapped is read, and where all of that was there before, its flags
are taken to be what they were; whoever has the time for it looks whether they are, before anything counts.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel.procfs.maps import Vma, count_maps, read_flags, read_maps, read_smaps, take_flags
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import Status
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.model import DumpProcess

#: Below so many bytes of its own a process is copied in less time than it takes to have it forked and to stop it again,
#: and below so many more for each mapping, of which the kernel copies each, tells each and takes each back once more.
WORTH_IT, _WORTH_EACH = 4 << 20, 8 << 10
_NOTHING: Mapping[Pid, list[Vma]] = {}


def iter_large(tree: Sequence[Pid]) -> Iterator[Pid]:
    """Those of *tree*, which runs, that have much memory of their own."""
    for pid in tree:
        with suppress(FileNotFoundError, ProcessLookupError):
            own = own_bytes(pid)
            if own >= WORTH_IT and is_large(own, count_maps(pid)):
                yield pid


def own_bytes(pid: Pid) -> int:
    """About how much private memory it has."""
    words = read_small(f"/proc/{pid}/statm").split()
    return (int(words[1]) - int(words[2])) * PAGE_SIZE


def is_large(own: int, n_mappings: int) -> bool:
    """Whether so many bytes of its own in so many mappings are much."""
    return own >= WORTH_IT + n_mappings * _WORTH_EACH


class Earlier:
    """The mappings of the large processes of *tree* as they are now.

    *unseen*: VmFlags that will not be seen when it is looked again.  *known*: the mappings of some at another time,
    whose flags are taken to be the same where all of those that there are now were there then.  ``read_s``: when the
    flags of the others had been read, by time.monotonic().
    """

    def __init__(
        self, tree: Sequence[Pid], unseen: frozenset[str] = frozenset(), known: Mapping[Pid, list[Vma]] = _NOTHING
    ) -> None:
        self._unseen = unseen
        self.read_s: dict[Pid, float] = {}
        self._maps: dict[Pid, list[Vma]] = {}
        #: Of each process whose flags are still to be looked at: what they were taken to be, by the mappings' starts.
        self._taken: dict[Pid, dict[int, frozenset[str]]] = {}
        for pid in iter_large(tree):
            with suppress(OSError):
                if pid in known and take_flags(read_maps(pid), known[pid]):
                    self._maps[pid] = known[pid]
                else:
                    self._maps[pid] = read_smaps(pid)
                    self.read_s[pid] = time.monotonic()

    def read(self, pid: Pid, status: Status) -> list[Vma]:
        """The mappings of *pid*, which is stopped, with their flags: as they were before, if all were there then."""
        earlier = self._maps.pop(pid, None)
        if earlier and not self._is_hidden(earlier, status):
            maps = read_maps(pid)
            if take_flags(maps, earlier):
                self._taken[pid] = {vma.start: vma.flags for vma in maps}
                return maps
        return read_smaps(pid)

    def _is_hidden(self, earlier: list[Vma], status: Status) -> bool:
        return bool(self._unseen) and (bool(status.locked_kib) or any(vma.flags & self._unseen for vma in earlier))

    def confirm(self, process: DumpProcess, pid: Pid) -> None:
        """RefusedError where the mappings of *process*, as *pid* shows them, have other flags than they had before."""
        taken = self._taken.pop(process.pid, None)
        if taken is None:
            return
        now = read_flags(pid)
        starts = [start for start, _, _ in now]
        for vma in process.maps:
            at = bisect_right(starts, vma.start) - 1
            found = now[at][2] if at >= 0 and now[at][1] > vma.start else None
            if vma.is_vsyscall or (found is None and "dc" in vma.flags):
                continue
            if found != taken[vma.start]:
                raise RefusedError(
                    f"{process.describe()} changed the advice for its memory at {vma.start:#x} just when it was "
                    "stopped",
                    hint="try again" + (", or with --snapshot never" if pid != process.pid else ""),
                )
