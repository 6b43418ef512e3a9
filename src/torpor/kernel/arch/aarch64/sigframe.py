"""The frame that rt_sigreturn reads: ``struct rt_sigframe``.

Source: arch/arm64/include/uapi/asm/sigcontext.h, asm/ucontext.h and arch/arm64/kernel/signal.c (v6.1).
"""

from __future__ import annotations

import struct

from torpor.kernel.arch.aarch64 import xstate as extended
from torpor.kernel.arch.aarch64.regs import UserRegs

_FPSIMD_MAGIC = 0x46508001
_FPSIMD_SIZE = 528
#: Flags that sigaltstack refuses: the task's own alternate stack stays as it is (``restore_altstack``).
_SS_FLAGS_INVALID = 0x7FFF
_SIGINFO_SIZE = 128
#: uc_flags, uc_link, uc_stack, uc_sigmask, room for a longer mask, then, on 16 bytes, fault_address.
_HEAD = struct.Struct("<QQ QiiQ Q 120x 8x Q")
_MCONTEXT_OFFSET = 176
#: Of ``sigcontext``: fault_address, 31 registers, sp, pc and pstate come before.
_RESERVED_OFFSET = 288
_RESERVED_SIZE = 4096
UCONTEXT_SIZE = _MCONTEXT_OFFSET + _RESERVED_OFFSET + _RESERVED_SIZE
#: The kernel wants the stack pointer on so many bytes.
_ALIGN = 16


def size_for(xstate: bytes) -> int:
    """How many bytes ``build`` writes at most for this extended state."""
    return _SIGINFO_SIZE + UCONTEXT_SIZE


def build(address: int, regs: UserRegs, xstate: bytes, sigmask: int) -> bytes:
    """The frame to be placed at *address* (the stack pointer of the rt_sigreturn)."""
    if address % _ALIGN or len(xstate) != extended.SIZE:
        raise ValueError(f"a frame at {address:#x} for {len(xstate)} bytes of extended state")
    vectors, (fpsr, fpcr) = xstate[:512], struct.unpack_from("<II", xstate, 512)
    return b"".join(
        (
            bytes(_SIGINFO_SIZE),
            _HEAD.pack(0, 0, 0, _SS_FLAGS_INVALID, 0, 0, sigmask, 0),
            regs.pack(),
            bytes(_RESERVED_OFFSET - 8 - len(regs.pack())),
            struct.pack("<IIII", _FPSIMD_MAGIC, _FPSIMD_SIZE, fpsr, fpcr),
            vectors,
            bytes(_RESERVED_SIZE - _FPSIMD_SIZE),  # the last of its records is one of zeroes
        )
    )
