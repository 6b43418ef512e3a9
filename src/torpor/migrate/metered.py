"""What lets no more than so much go in a second: a way for streams, which counts it, too, and pages that are given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torpor.engine.options import ReadPages
from torpor.images.stores.stream import Way
from torpor.kernel.vm import PAGE_SIZE

#: What may go at once after a pause, in seconds' worth.
_AHEAD_S = 0.05


def _go_on() -> None:
    pass


class Metered:
    """Over *way*, which stays the caller's; *limit*: bytes a second, 0 for none.

    ``look`` is called before anything goes; what it raises is raised.
    """

    def __init__(self, way: Way, limit: int = 0) -> None:
        self._way, self._limit = way, limit
        self._due = 0.0
        self.n_sent = 0
        self.look: Callable[[], None] = _go_on

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it, when its time has come."""
        self.look()
        n_bytes = self._way.write(data)
        self.n_sent += n_bytes
        if self._limit:
            now = time.monotonic()
            self._due = max(self._due, now - _AHEAD_S) + n_bytes / self._limit
            if self._due > now:
                time.sleep(self._due - now)
        return n_bytes

    def finish(self) -> None:
        """The stream has ended."""
        self._way.finish()

    @contextmanager
    def watched(self, look: Callable[[], None]) -> Iterator[None]:
        """Have *look* called."""
        self.look = look
        try:
            yield
        finally:
            self.look = _go_on

    def close(self) -> None:
        """Nothing: the next stream goes the same way."""


class Pace:
    """Pages that are read for somebody who asks for few at once when he needs them, and for many when he does not.

    The first never wait, and are counted; the others are given in small pieces, each no longer after the one before
    than anybody who needs a page notices.  *limit*: bytes a second, 0 for none.
    """

    def __init__(self, limit: int = 0) -> None:
        self._limit, self._due = limit, 0.0

    def over(self, read: ReadPages) -> ReadPages:
        """*read*, which gives less."""
        if not self._limit:
            return read

        def paced(ident: int, start: int, n_bytes: int, /) -> memoryview:
            if n_bytes > PAGE_SIZE:
                n_bytes = self._piece(n_bytes)
            found = read(ident, start, n_bytes)
            self._due = max(self._due, time.monotonic() - _AHEAD_S) + found.nbytes / self._limit
            return found

        return paced

    def _piece(self, n_bytes: int) -> int:
        # Answers go in the order of the questions: a page that is needed waits for this.
        wait_s = max(self._due - time.monotonic(), 0.0)
        time.sleep(min(wait_s, _AHEAD_S))
        if wait_s > _AHEAD_S:
            return PAGE_SIZE
        return min(n_bytes, max(int(self._limit * _AHEAD_S) & -PAGE_SIZE, PAGE_SIZE))
