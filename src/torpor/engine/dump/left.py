"""Pages that a dump has not copied, read from the stopped tree by whoever rebuilds it elsewhere."""

from __future__ import annotations

from bisect import bisect_right

from torpor.base.errors import TorporError
from torpor.base.fds import Closing
from torpor.engine.dump.session import DumpSession
from torpor.images.pages import Range
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.contents import Memory, is_unreadable

_MOST_BYTES = 4 << 20
_TOP = 1 << 64


class Left(Closing):
    """What is left of all processes, by their pids in the tree.  A context manager."""

    def __init__(self, session: DumpSession) -> None:
        self._room = memoryview(bytearray(_MOST_BYTES))
        self._ranges: dict[int, list[Range]] = {}
        self._memories: dict[int, Memory] = {}
        for process in session.alive:
            scanned = session.scans[process.pid]
            unreadable = any(is_unreadable(vma) for vma in scanned.private)
            self._ranges[process.ns_pid] = scanned.left
            self._memories[process.ns_pid] = Memory(process.pid, gentle=True, unreadable=unreadable)

    def read(self, ident: int, start: int, n_bytes: int) -> memoryview:
        """The pages of process *ident* from *start* on, as many of them as lie together; good until the next call.

        Who asks is a stranger: TorporError for a page that is not left of it.
        """
        ranges = self._ranges.get(ident, [])
        at = bisect_right(ranges, (start, _TOP))
        if not at or start >= ranges[at - 1][1] or start % PAGE_SIZE or n_bytes < PAGE_SIZE:
            raise TorporError(f"of pid {ident} no page is left at {start:#x}")
        n_bytes = min(n_bytes & -PAGE_SIZE, ranges[at - 1][1] - start, _MOST_BYTES)
        found = self._room[:n_bytes]
        self._memories[ident].read([(start, n_bytes)], found)
        return found

    def close(self) -> None:
        for memory in self._memories.values():
            memory.close()
