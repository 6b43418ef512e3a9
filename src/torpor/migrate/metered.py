"""A way for streams that counts what goes, and lets no more than so much go in a second."""

from __future__ import annotations

import time

from torpor.images.stores.stream import Way

#: What may go at once after a pause, in seconds' worth.
_AHEAD_S = 0.05


class Metered:
    """Over *way*, which stays the caller's; *limit*: bytes a second, 0 for none."""

    def __init__(self, way: Way, limit: int = 0) -> None:
        self._way, self._limit = way, limit
        self._due = 0.0
        self.n_sent = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """All of it, when its time has come."""
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

    def close(self) -> None:
        """Nothing: the next stream goes the same way."""
