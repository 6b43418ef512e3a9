"""Terminals with numbers that nobody else gets, for programs that are dumped and restored where they run."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_TIOCGPTN = 0x80045430
#: Those of workloads lie below (``wl_open_master``).
_LOWEST = 336


@contextmanager
def others_get_lower() -> Iterator[None]:
    """What a program opens meanwhile has a number that nobody gets later.

    The machine's terminals get the lowest number that is free: whoever is dumped gives his back, and another program,
    started meanwhile, may have it.
    """
    masters, number = [], -1
    try:
        while number < _LOWEST:
            masters.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
            (number,) = struct.unpack("I", fcntl.ioctl(masters[-1], _TIOCGPTN, bytes(4)))
        os.close(masters.pop())
        yield
    finally:
        for master in masters:
            os.close(master)
