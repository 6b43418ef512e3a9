"""Code that is written over a function: a jump to another one, or the system call in its place.

Both leave all arguments as they are, which the C calling convention has in the registers of a system call, but for the
fourth: none of these functions has more than three that the system call takes.

    jump                movabs $TO,%rax ; jmp *%rax
    SYSTEM_CALLS        mov $NR,%eax ; syscall ; ret
    NO_SYSTEM_CALL      mov $-ENOSYS,%rax ; ret
                        By which C libraries are told to make the system call themselves.
    ... getrandom       cmp $-1,%r8 ; je 1f ; (the same) ; 1: mov $-ENOSYS,%rax ; ret
                        With that fifth argument the vdso's function tells what memory it needs, and asks nothing.
"""

from __future__ import annotations

import struct

from torpor.kernel.arch import nr


def jump(to: int) -> bytes:
    """Code that goes on at the address *to*."""
    return b"\x48\xb8" + struct.pack("<Q", to) + b"\xff\xe0"


def _call(number: int) -> bytes:
    return b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"


NO_SYSTEM_CALL = bytes.fromhex("48c7c0daffffffc3")
_GETRANDOM = bytes.fromhex("4983f8ff7408") + _call(nr.getrandom) + NO_SYSTEM_CALL

#: What stands in for a function of the vdso, by its name without ``__vdso_``.
SYSTEM_CALLS: dict[str, bytes] = {
    "clock_getres": _call(nr.clock_getres),
    "clock_gettime": _call(nr.clock_gettime),
    "getcpu": _call(nr.getcpu),
    "getrandom": _GETRANDOM,
    "gettimeofday": _call(nr.gettimeofday),
    "time": _call(nr.time),
}
