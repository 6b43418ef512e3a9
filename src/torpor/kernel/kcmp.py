"""kcmp(2): whether two tasks share a kernel object, and which of many it is."""

from __future__ import annotations

from collections.abc import Iterator

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.syscall import raw_ints, syscall

KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2
KCMP_FS = 3
KCMP_SIGHAND = 4
KCMP_IO = 5
KCMP_SYSVSEM = 6

_EQUAL = 0
_LESS = 1


def kcmp(pid1: int, pid2: int, what: int, a: int = 0, b: int = 0) -> int:
    """0 equal, 1 less, 2 greater, 3 different without an order."""
    return syscall("kcmp", nr.kcmp, pid1, pid2, what, a, b)


class KcmpIndex:
    """Distinct kernel objects of one type in the order that kcmp gives them, each with a number.

    Finding one among n takes log n calls instead of n.
    """

    __slots__ = ("_known", "_what")

    def __init__(self, what: int) -> None:
        self._what = what
        self._known: list[tuple[Pid, int, int]] = []

    def __len__(self) -> int:
        return len(self._known)

    def find(self, pid: Pid, number: int = 0) -> tuple[int | None, int]:
        """(the object's number or None, the place at which ``insert`` puts it)."""
        known, what, call = self._known, self._what, nr.kcmp
        low, high = 0, len(known)
        while low < high:
            middle = (low + high) // 2
            other_pid, other_number, found = known[middle]
            order = raw_ints(call, pid, other_pid, what, number, other_number)
            if order < 0:
                order = kcmp(pid, other_pid, what, number, other_number)
            if order == _EQUAL:
                return found, middle
            if order == _LESS:
                high = middle
            else:
                low = middle + 1
        return None, low

    def __iter__(self) -> Iterator[tuple[Pid, int, int]]:
        """(pid, number, value) of each, as inserted."""
        return iter(self._known)

    def insert(self, place: int, pid: Pid, number: int, value: int) -> None:
        """Add an object that ``find`` did not have, at the place that it gave."""
        self._known.insert(place, (pid, number, value))
