"""The program that the first puppet starts as: it waits for a pipe to close, and ends."""

from __future__ import annotations

#: e_machine of ELF.
ELF_MACHINE = 62
LISTING = """
        .intel_syntax noprefix
        xor     eax, eax
        xor     edi, edi
        lea     rsi, [rsp - 8]
        mov     edx, 1
        syscall
        mov     eax, 231
        xor     edi, edi
        syscall
"""
#: read(0, sp - 8, 1); exit_group(0)
CODE = bytes.fromhex("31c031ff488d7424f8ba010000000f05b8e700000031ff0f05")
#: Where in it a system call instruction is.
SYSCALL_OFFSET = 14
#: The first address that no task has.
TASK_SIZE = 0x7FFFFFFFF000
