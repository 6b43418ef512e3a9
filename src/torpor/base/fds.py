"""Descriptors that somebody owns."""

from __future__ import annotations

import os
from types import TracebackType


class OwnedFd:
    """A descriptor of this process that is closed exactly once, by ``close`` or at the end of a ``with``."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The number; ValueError after ``close``."""
        if self._fd < 0:
            raise ValueError("descriptor is closed")
        return self._fd

    def release(self) -> int:
        """Give the number away; the caller closes it."""
        fd, self._fd = self.fileno(), -1
        return fd

    def close(self) -> None:
        """Close; twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> OwnedFd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
