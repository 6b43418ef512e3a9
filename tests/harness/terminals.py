"""Terminals with numbers that nobody else gets, for programs that are dumped and restored where they run."""

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from harness.turns import turn_at

_TIOCGPTN = 0x80045430
#: Those of workloads lie below (``wl_open_master``), and above from 384 on (many.c).
_LOWEST, _EACH, _N_PLACES = 336, 8, 6


@cache
def _place() -> int:
    """The first of some numbers that no other test run has, as long as this one lasts."""
    for place in range(_N_PLACES):
        path = Path(tempfile.gettempdir()) / f"torpor-terminals-{os.getuid()}.{place}"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _LOWEST + place * _EACH
        except BlockingIOError:
            os.close(lock)
    return _LOWEST


@contextmanager
def others_get_lower() -> Iterator[None]:
    """What a program opens meanwhile has a number that nobody gets later.

    The machine's terminals get the lowest number that is free: whoever is dumped gives his back, and another program,
    started meanwhile, may have it.
    """
    masters, number, lowest = [], -1, _place()
    # Who finds those below held by another would hold none, and they are free again when the other has gone.
    with turn_at(Path("/dev/pts")):
        try:
            while number < lowest:
                masters.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
                (number,) = struct.unpack("I", fcntl.ioctl(masters[-1], _TIOCGPTN, bytes(4)))
            os.close(masters.pop())
            yield
        finally:
            for master in masters:
                os.close(master)
