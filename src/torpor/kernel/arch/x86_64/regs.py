"""``struct user_regs_struct`` (``asm/user_64.h``), as PTRACE_GETREGS and NT_PRSTATUS give it."""

from __future__ import annotations

import struct
from operator import attrgetter

from torpor.base.records import dataclass, fields

NT_PRSTATUS = 1
NT_PRFPREG = 2
NT_X86_XSTATE = 0x202

_FORMAT = struct.Struct("27Q")
SIZE = _FORMAT.size
_MASK = (1 << 64) - 1

ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516
EINTR = 4

CS_64BIT = 0x33


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
        """The kernel's bytes."""
        return _FORMAT.pack(*_values(self))

    def copy(self) -> UserRegs:
        """An independent copy."""
        return UserRegs(*_values(self))

    @property
    def in_syscall(self) -> bool:
        """Whether the task was stopped inside a system call (``orig_ax`` is -1 otherwise)."""
        return self.orig_ax != _MASK

    @property
    def is_compat(self) -> bool:
        """Whether the task runs 32-bit code."""
        return self.cs != CS_64BIT


#: All members at once, in the kernel's order; ``dataclasses.astuple`` copies deeply and takes fifty times as long.
_values = attrgetter(*(field.name for field in fields(UserRegs)))
