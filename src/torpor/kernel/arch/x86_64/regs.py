"""``struct user_regs_struct`` (``asm/user_64.h``), as PTRACE_GETREGS and NT_PRSTATUS give it.

What the layers above know of a task's registers, on every machine: ``ip``, ``sp``, ``result``, ``in_syscall``,
``is_compat``, and the methods and functions below.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import attrgetter

from torpor.base.ids import Pid
from torpor.base.records import dataclass, fields
from torpor.kernel.arch.x86_64 import nr
from torpor.kernel.syscall import address_of, syscall

_PTRACE_GETREGS = 12
_PTRACE_SETREGS = 13

_FORMAT = struct.Struct("27Q")
SIZE = _FORMAT.size
_MASK = (1 << 64) - 1

ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516
EINTR = 4

_CS_64BIT = 0x33
_USER_SS = 0x2B
#: What stands before the code to which a restartable sequence is aborted (``bits/rseq.h``).
RSEQ_SIGNATURE = 0x53053053
_INTERRUPTS_ENABLED = 0x202


@dataclass(slots=True)
class UserRegs:
    """One task's general registers; field order is the kernel's."""

    r15: int = 0
    r14: int = 0
    r13: int = 0
    r12: int = 0
    bp: int = 0
    bx: int = 0
    r11: int = 0
    r10: int = 0
    r9: int = 0
    r8: int = 0
    ax: int = 0
    cx: int = 0
    dx: int = 0
    si: int = 0
    di: int = 0
    orig_ax: int = 0
    ip: int = 0
    cs: int = 0
    flags: int = 0
    sp: int = 0
    ss: int = 0
    fs_base: int = 0
    gs_base: int = 0
    ds: int = 0
    es: int = 0
    fs: int = 0
    gs: int = 0

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> UserRegs:
        """From the kernel's bytes (exactly ``SIZE``)."""
        return cls(*_FORMAT.unpack(data))

    def pack(self) -> bytes:
        """The bytes of the kernel's ``struct user_regs_struct``, ``SIZE`` of them."""
        return _FORMAT.pack(*_values(self))

    def copy(self) -> UserRegs:
        """Other registers with the same values, which may be changed by themselves."""
        return UserRegs(*_values(self))

    @property
    def in_syscall(self) -> bool:
        """Whether the task was stopped inside a system call (``orig_ax`` is -1 otherwise)."""
        return self.orig_ax != _MASK

    @property
    def is_compat(self) -> bool:
        """Whether the task runs 32-bit code."""
        return self.cs != _CS_64BIT

    @property
    def result(self) -> int:
        """What the last system call gave (unsigned)."""
        return self.ax

    def leave_syscall(self) -> None:
        """Nothing is made again as the task goes on."""
        self.orig_ax = _MASK

    def emptied(self) -> UserRegs:
        """What a task that does nothing yet has, of this one's kind."""
        return UserRegs(cs=self.cs, ss=self.ss, flags=_INTERRUPTS_ENABLED, orig_ax=_MASK)

    def set_call(self, at: int, number: int, args: Sequence[int]) -> None:
        """Make a system call next, by the instruction at *at*."""
        words = [word & _MASK for word in args]
        self.di, self.si, self.dx, self.r10, self.r8, self.r9 = words + [0] * (6 - len(words))
        self.ax, self.orig_ax, self.ip = number, _MASK, at


def of_new_task() -> UserRegs:
    """What a task has that does nothing yet."""
    return UserRegs(cs=_CS_64BIT, ss=_USER_SS, flags=_INTERRUPTS_ENABLED, orig_ax=_MASK)


def read_regs(tid: Pid) -> UserRegs:
    """Those of a stopped tracee, also of one that runs 32-bit code."""
    buffer = bytearray(SIZE)
    syscall("ptrace(GETREGS)", nr.ptrace, _PTRACE_GETREGS, tid, 0, address_of(buffer))
    return UserRegs.unpack(buffer)


def write_regs(tid: Pid, values: UserRegs) -> None:
    """The counterpart, all at once."""
    buffer = bytearray(values.pack())
    syscall("ptrace(SETREGS)", nr.ptrace, _PTRACE_SETREGS, tid, 0, address_of(buffer))


def read_thread_pointer(tid: Pid) -> int:
    """Near which the C library of a stopped tracee keeps what is its thread's."""
    return read_regs(tid).fs_base


#: All members at once, in the kernel's order; ``dataclasses.astuple`` copies deeply and takes fifty times as long.
_values = attrgetter(*(field.name for field in fields(UserRegs)))
