"""Single system calls by instructions that a program has anyway, before there is a loop of ours in it.

The thread returns from the call's instruction to an address that it finds on its stack, that of sigreturn code, with
the stack pointer at the frame that this takes: what it does if we die meanwhile.
"""

from __future__ import annotations

from torpor.kernel.arch.x86_64.regs import UserRegs

#: ``mov eax, 15; syscall`` in the two encodings that C libraries use.
SIGRETURN = (bytes.fromhex("48c7c00f0000000f05"), bytes.fromhex("b80f0000000f05"))
#: ``syscall; ret``, and the instruction by itself.
SYSCALL_RET = bytes.fromhex("0f05c3")
SYSCALL = bytes.fromhex("0f05")
LONGEST = max(map(len, SIGRETURN))

#: Where the frame lies above the address that ``set_return`` is given.
FRAME_OFFSET = 8
#: What a function may use below its stack pointer (System V ABI).
RED_ZONE = 128


def find(text: bytes, code: bytes) -> int:
    """Where *code* stands as instructions in *text*, which they may do at any byte; -1 for nowhere."""
    return text.find(code)


def below_frame(sigreturn: int) -> bytes:
    """The FRAME_OFFSET bytes that precede the frame."""
    return sigreturn.to_bytes(FRAME_OFFSET, "little")


def set_return(regs: UserRegs, stack: int, sigreturn: int) -> None:
    """Have ``syscall; ret`` go on at *sigreturn*, with what ``below_frame`` gives and the frame at *stack*."""
    regs.sp = stack
