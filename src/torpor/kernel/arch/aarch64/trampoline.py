"""Code that is written over a function of the vdso: a jump to another one, or the system call in its place.

All arguments stay as they are.

    jump                ldr x16, 1f ; br x16 ; 1: .quad TO
    SYSTEM_CALLS        mov x8, #NR ; svc #0 ; ret
    NO_SYSTEM_CALL      mov x0, #-ENOSYS ; ret
    ... getrandom       cmn x4, #1 ; b.eq 1f ; (the call) ; 1: mov x0, #-ENOSYS ; ret
"""

from __future__ import annotations

import struct

from torpor.kernel.arch.aarch64 import nr


def jump(to: int) -> bytes:
    """Code that goes on at the address *to*."""
    return bytes.fromhex("5000005800021fd6") + struct.pack("<Q", to)


def _call(number: int) -> bytes:
    return struct.pack("<I", 0xD2800008 | number << 5) + bytes.fromhex("010000d4c0035fd6")


NO_SYSTEM_CALL = bytes.fromhex("a0048092c0035fd6")
_GETRANDOM = bytes.fromhex("9f0400b180000054") + _call(nr.getrandom) + NO_SYSTEM_CALL

#: What stands in for a function of the vdso, by its name without ``__kernel_``.
SYSTEM_CALLS: dict[str, bytes] = {
    "clock_getres": _call(nr.clock_getres),
    "clock_gettime": _call(nr.clock_gettime),
    "getrandom": _GETRANDOM,
    "gettimeofday": _call(nr.gettimeofday),
}
