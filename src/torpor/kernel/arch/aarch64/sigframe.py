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
#: The other records of a frame: vectors, and the last one.
_BESIDE_SVE = _FPSIMD_SIZE + 16
UCONTEXT_SIZE = _MCONTEXT_OFFSET + _RESERVED_OFFSET + _RESERVED_SIZE
#: The kernel wants the stack pointer on so many bytes, and so each record.
_ALIGN = 16
#: ``struct sve_context``: its flags' bit says that there are registers (SVE_SIG_FLAG_SM is not for us).
_SVE_MAGIC, _SVE_CONTEXT = 0x53564501, struct.Struct("<IIHH4x")
#: ``struct extra_context``: where the records go on, and how long they are.
_EXTRA_MAGIC, _EXTRA_CONTEXT = 0x45585401, struct.Struct("<IIQI12x")
_END = bytes(_ALIGN)


def size_for(xstate: bytes) -> int:
    """How many bytes ``build`` writes at most for this extended state."""
    sve = extended.sets_of(xstate).get(extended.NT_ARM_SVE)
    longest = extended.SVE_HEADER.unpack_from(sve)[1] if sve is not None else 0
    return _SIGINFO_SIZE + UCONTEXT_SIZE + (longest + 2 * _ALIGN if longest > _RESERVED_SIZE - _BESIDE_SVE else 0)


def build(address: int, regs: UserRegs, xstate: bytes, sigmask: int) -> bytes:
    """The frame to be placed at *address* (the stack pointer of the rt_sigreturn)."""
    if address % _ALIGN or len(xstate) < extended.SIZE:
        raise ValueError(f"a frame at {address:#x} for {len(xstate)} bytes of extended state")
    vectors, (fpsr, fpcr) = xstate[:512], struct.unpack_from("<II", xstate, 512)
    more, behind = _sve_records(address + _SIGINFO_SIZE + UCONTEXT_SIZE, xstate)
    return b"".join(
        (
            bytes(_SIGINFO_SIZE),
            _HEAD.pack(0, 0, 0, _SS_FLAGS_INVALID, 0, 0, sigmask, 0),
            regs.pack(),
            bytes(_RESERVED_OFFSET - 8 - len(regs.pack())),
            struct.pack("<IIII", _FPSIMD_MAGIC, _FPSIMD_SIZE, fpsr, fpcr),
            vectors,
            more,
            bytes(_RESERVED_SIZE - _FPSIMD_SIZE - len(more)),  # the last of its records is one of zeroes
            behind,
        )
    )


def _sve_records(end: int, xstate: bytes) -> tuple[bytes, bytes]:
    """Of SVE's registers, where they hold more than the first record: what is in the frame, and behind it, at *end*."""
    if not extended.is_lost_by_calls(xstate):
        return b"", b""
    sve = extended.sets_of(xstate)[extended.NT_ARM_SVE]
    length = extended.SVE_HEADER.unpack_from(sve)[2]
    # The register set ends with FPSR and FPCR, which the record has not.
    registers = sve[extended.SVE_HEADER.size :][: length * 32 + length // 8 * 17]
    size = (_SVE_CONTEXT.size + len(registers) + _ALIGN - 1) & -_ALIGN
    record = (_SVE_CONTEXT.pack(_SVE_MAGIC, size, length, 0) + registers).ljust(size, b"\0")
    if size <= _RESERVED_SIZE - _BESIDE_SVE:
        return record, b""
    record += _END
    return _EXTRA_CONTEXT.pack(_EXTRA_MAGIC, _EXTRA_CONTEXT.size, end, len(record)) + _END, record
