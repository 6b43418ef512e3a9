"""The frame that rt_sigreturn reads: ``struct ucontext`` and the extended state behind it.

Source: arch/x86/include/uapi/asm/sigcontext.h and arch/x86/kernel/fpu/signal.c.  The layout of NT_X86_XSTATE is that of
the frame's extended state; only the software-reserved bytes and the closing magic are ours to write.
"""

from __future__ import annotations

import struct

from torpor.kernel.arch.x86_64.regs import UserRegs

_FP_XSTATE_MAGIC1 = 0x46505853
_FP_XSTATE_MAGIC2 = 0x46505845
_SW_RESERVED_OFFSET = 464
_XSTATE_BV_OFFSET = 512
# AMX's tiles, the last component of the uncompacted layout.
_XTILEDATA = 1 << 18
_XTILEDATA_SIZE = 8192
_UC_FP_XSTATE = 1
_UC_SIGCONTEXT_SS = 2
_UC_STRICT_RESTORE_SS = 4
# rt_sigreturn tries to set this as the alternate stack, fails with EINVAL and, by its contract, goes on: the task's
# own alternate stack stays as it is.
_SS_FLAGS_INVALID = 0x7FFF

_UCONTEXT = struct.Struct("<QQ QiiQ 18Q 4H QQQQQ 64x Q")
_XSTATE_ALIGN = 64
UCONTEXT_SIZE = _UCONTEXT.size


def size_for(xstate: bytes) -> int:
    """How many bytes ``build`` writes at most for this extended state."""
    return UCONTEXT_SIZE + _XSTATE_ALIGN + len(xstate) + 4


def build(address: int, regs: UserRegs, xstate: bytes, sigmask: int) -> bytes:
    """The frame to be placed at *address* (the stack pointer of the rt_sigreturn)."""
    xstate, features = _carried(xstate)
    fp_address = (address + UCONTEXT_SIZE + _XSTATE_ALIGN - 1) & -_XSTATE_ALIGN
    r = regs
    general = (r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.di, r.si, r.bp, r.bx, r.dx, r.ax, r.cx, r.sp)
    head = _UCONTEXT.pack(
        *(_UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS, 0),
        *(0, _SS_FLAGS_INVALID, 0, 0),
        *general,
        *(r.ip, r.flags),
        *(r.cs & 0xFFFF, 0, 0, r.ss & 0xFFFF),
        *(0, 0, 0, 0, fp_address),
        sigmask,
    )
    frame = bytearray(fp_address - address + len(xstate) + 4)
    frame[: len(head)] = head
    start = fp_address - address
    frame[start : start + len(xstate)] = xstate
    struct.pack_into(
        "<IIQI", frame, start + _SW_RESERVED_OFFSET, _FP_XSTATE_MAGIC1, len(xstate) + 4, features, len(xstate)
    )
    struct.pack_into("<I", frame, start + len(xstate), _FP_XSTATE_MAGIC2)
    return bytes(frame)


def _carried(xstate: bytes) -> tuple[bytes, int]:
    """The part of the extended state that the frame holds, and its features.

    A task that never asked for AMX may not have room for tiles in its frame: the kernel would take none of the frame's
    state but the legacy part (``check_xstate_in_sigframe``).  Tiles in their initial state are left out.
    """
    (features,) = struct.unpack_from("<Q", xstate, _SW_RESERVED_OFFSET)
    (present,) = struct.unpack_from("<Q", xstate, _XSTATE_BV_OFFSET)
    if features & _XTILEDATA and not present & _XTILEDATA:
        return xstate[:-_XTILEDATA_SIZE], features & ~_XTILEDATA
    return xstate, features
