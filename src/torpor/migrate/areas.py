"""Ranges of memory that move, are cut and dropped, and are taken bit by bit: each knows where its pages come from."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

#: (start, end, address at which its source has the first page).
Piece = tuple[int, int, int]


class Areas:
    """Pieces that do not overlap, in order."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._pieces = sorted(pieces)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)

    @property
    def n_bytes(self) -> int:
        """Of all of them."""
        return sum(end - start for start, end, _ in self._pieces)

    def has(self, address: int) -> bool:
        """Whether *address* lies in one of them."""
        at = bisect_right(self._pieces, (address, _TOP, _TOP))
        return at > 0 and address < self._pieces[at - 1][1]

    def take(self, start: int, end: int) -> list[Piece]:
        """Take out what lies between."""
        first = bisect_right(self._pieces, (start, _TOP, _TOP))
        if first and self._pieces[first - 1][1] > start:
            first -= 1
        last = first
        taken: list[Piece] = []
        left: list[Piece] = []
        while last < len(self._pieces) and self._pieces[last][0] < end:
            begin, until, source = self._pieces[last]
            low, high = max(begin, start), min(until, end)
            if begin < low:
                left.append((begin, low, source))
            if high < until:
                left.append((high, until, source + high - begin))
            taken.append((low, high, source + low - begin))
            last += 1
        if taken:
            self._pieces[first:last] = left
        return taken

    def take_first(self, n_bytes: int) -> Piece | None:
        """Take out up to so many bytes of the first."""
        if not self._pieces:
            return None
        start, end, _ = self._pieces[0]
        return self.take(start, min(end, start + n_bytes))[0]

    def add(self, piece: Piece) -> None:
        """Put one in, where nothing is."""
        insort(self._pieces, piece)

    def move(self, start: int, to: int, length: int) -> None:
        """What lay there lies elsewhere; what lies where it comes to is gone."""
        taken = self.take(start, start + length)
        self.take(to, to + length)
        for first, last, source in taken:
            self.add((first + to - start, last + to - start, source))


_TOP = 1 << 64
