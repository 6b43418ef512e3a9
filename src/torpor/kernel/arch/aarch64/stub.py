"""The program that the first puppet starts as: it waits for a pipe to close, and ends."""

from __future__ import annotations

#: e_machine of ELF.
ELF_MACHINE = 183
LISTING = """
        mov     x0, #0
        sub     x1, sp, #16
        mov     x2, #1
        mov     x8, #63
        svc     #0
        mov     x0, #0
        mov     x8, #94
        svc     #0
"""
#: read(0, sp - 16, 1); exit_group(0)
CODE = bytes.fromhex("000080d2e14300d1220080d2e80780d2010000d4000080d2c80b80d2010000d4")
#: Where in it a system call instruction is.
SYSCALL_OFFSET = 16
#: The first address that no task has, where the kernel gives them 48 bits (some give 39, 42 or 47).
TASK_SIZE = 1 << 48
