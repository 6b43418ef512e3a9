"""The one funnel for system calls that Python has no wrapper for.

Every call goes through libc's ``syscall(2)`` by ctypes, which releases the GIL, and comes back as a non-negative
number or as an :class:`OSError` that names the call.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_raw = _libc.syscall
_raw.restype = ctypes.c_long
_raw.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 6
_get_errno = ctypes.get_errno
_address = ctypes.addressof
_at = (ctypes.c_char * 0).from_buffer

#: The call itself, with numbers that fit into an int: -1 for a failure.  For loops in which the funnel's own time
#: tells, a third of which is to look at types of arguments.
raw_ints = _libc["syscall"]
raw_ints.restype = ctypes.c_long


def syscall(name: str, nr: int, a0: int = 0, a1: int = 0, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
    """Call *nr*; the result, or OSError with *name* in its text."""
    result: int = _raw(nr, a0, a1, a2, a3, a4, a5)
    if result == -1:
        errno = _get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result


def address_of(buffer: bytearray | memoryview) -> int:
    """Address of a writable buffer's first byte; the caller keeps the buffer alive while the address is in use."""
    return _address(_at(buffer))
