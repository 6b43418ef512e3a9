"""Single system calls by instructions that a program has anyway, before there is a loop of ours in it.

The thread returns from the call's instruction to its link register, which holds the address of sigreturn code, with
the stack pointer at the frame that this takes: what it does if we die meanwhile.
"""

from __future__ import annotations

from torpor.kernel.arch.aarch64.regs import UserRegs

#: ``mov x8, #139; svc #0``: of the vdso, and of C libraries.
SIGRETURN = (bytes.fromhex("681180d2010000d4"),)
#: ``svc #0; ret``, and the instruction by itself.
SYSCALL_RET = bytes.fromhex("010000d4c0035fd6")
SYSCALL = bytes.fromhex("010000d4")
LONGEST = max(map(len, SIGRETURN))

#: Where the frame lies above the address that ``set_return`` is given.
FRAME_OFFSET = 0
#: What a function may use below its stack pointer (AAPCS64: nothing).
RED_ZONE = 0
_INSTRUCTION = 4


def find(text: bytes, code: bytes) -> int:
    """Where *code* stands as instructions in *text*, which begins with one; -1 for nowhere.

    Elsewhere than at four bytes the same bytes are none: who is sent there faults (SIGBUS), again and again.
    """
    at = text.find(code)
    while at >= 0 and at % _INSTRUCTION:
        at = text.find(code, at + 1)
    return at


def below_frame(sigreturn: int) -> bytes:
    """The FRAME_OFFSET bytes that precede the frame."""
    return b""


def set_return(regs: UserRegs, stack: int, sigreturn: int) -> None:
    """Have ``svc; ret`` go on at *sigreturn*, with the frame at *stack*."""
    regs.sp, regs.x30 = stack, sigreturn
