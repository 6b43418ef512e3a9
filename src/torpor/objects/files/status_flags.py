"""The status flags of an open file description that was made without them (F_SETFL).

Not the access mode, which open(2) gives, and not O_ASYNC, which wants an owner first (``fown``).
"""

from __future__ import annotations

import fcntl
import os

_SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME


def restore(fd: int, flags: int) -> None:
    """Give *fd*, which has none of them, those of *flags* that F_SETFL may set."""
    wanted = flags & _SETTABLE
    if wanted:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)


def replace(fd: int, flags: int) -> None:
    """As ``restore``, for one that was made with others."""
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & _SETTABLE)
