"""The only machine code torpor owns: a loop that makes an array of system calls.

It runs in a task that we hold by ptrace.  It ends by sending the task a signal which that task ignores by default (the
tracer chooses one without a handler): traced, the task stops there and the tracer takes over; untraced, because the
tracer has died, the signal evaporates and rt_sigreturn brings back the registers that the task had when we met it.

Registers on entry: rbx first record, ebp number of records (at least 1), r12d the signal, r15 the ``ucontext`` to
return to.  The stack is not used.

A record is ten 64-bit words: number (low half) and may-fail flag (high half), six arguments, result, and two addresses
(0: none) where the result is stored as well, so that a later record can use it.  A result in -4095..-1 of a record
that may not fail ends the loop early.
"""

from __future__ import annotations

import struct

from torpor.kernel.arch.x86_64.regs import UserRegs

RECORD = struct.Struct("<II6QqQQ")
RECORD_SIZE = RECORD.size
RESULT_OFFSET = 56
ARG_OFFSET = 8

LISTING = """
        .intel_syntax noprefix
next:   mov     eax, [rbx]
        mov     rdi, [rbx + 8]
        mov     rsi, [rbx + 16]
        mov     rdx, [rbx + 24]
        mov     r10, [rbx + 32]
        mov     r8,  [rbx + 40]
        mov     r9,  [rbx + 48]
        syscall
        mov     [rbx + 56], rax
        mov     rcx, [rbx + 64]
        test    rcx, rcx
        jz      1f
        mov     [rcx], rax
1:      mov     rcx, [rbx + 72]
        test    rcx, rcx
        jz      2f
        mov     [rcx], rax
2:      cmp     dword ptr [rbx + 4], 0
        jne     3f
        cmp     rax, -4095
        jae     done
3:      add     rbx, 80
        dec     ebp
        jnz     next
done:   mov     eax, 39
        syscall
        mov     edi, eax
        mov     eax, 186
        syscall
        mov     esi, eax
        mov     edx, r12d
        mov     eax, 234
        syscall
        mov     rsp, r15
        mov     eax, 15
        syscall
"""

CODE = bytes.fromhex(
    "8b03488b7b08488b7310488b53184c8b53204c8b43284c8b4b300f0548894338488b4b404885c97403488901488b4b48"
    "4885c97403488901837b04007508483d01f0ffff73084883c350ffcd75b2b8270000000f0589c7b8ba0000000f0589c6"
    "4489e2b8ea0000000f054c89fcb80f0000000f05"
)
#: Behind the first system call after the last record's.
DONE_OFFSET = 85


def start(regs: UserRegs, code: int, records: int, count: int, stop_signal: int, frame: int) -> None:
    """Have a task with *regs* run the loop that lies at *code*; *frame* is the ``ucontext`` to return to."""
    regs.ip, regs.bx, regs.bp, regs.r12, regs.r15 = code, records, count, stop_signal, frame
