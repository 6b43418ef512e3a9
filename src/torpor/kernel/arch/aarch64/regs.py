"""``struct user_pt_regs`` (``asm/ptrace.h``), as NT_PRSTATUS gives it.

That a task was stopped inside a system call does not show in it: the kernel has put the call's arguments and address
back, to make it again, before it tells a tracer of the stop (``do_signal`` in arch/arm64/kernel/signal.c, v6.1).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import attrgetter

from torpor.base.ids import Pid
from torpor.base.records import dataclass, fields
from torpor.kernel.arch.aarch64 import nr
from torpor.kernel.syscall import address_of, syscall

_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205
_NT_PRSTATUS = 1
_NT_ARM_TLS = 0x401
#: What stands before the code to which a restartable sequence is aborted (``bits/rseq.h``).
RSEQ_SIGNATURE = 0xD428BC00

_FORMAT = struct.Struct("34Q")
SIZE = _FORMAT.size
_MASK = (1 << 64) - 1
_MODE32 = 0x10
_BTYPE = 0xC00


@dataclass(slots=True)
class UserRegs:
    """One task's general registers; field order is the kernel's."""

    x0: int = 0
    x1: int = 0
    x2: int = 0
    x3: int = 0
    x4: int = 0
    x5: int = 0
    x6: int = 0
    x7: int = 0
    x8: int = 0
    x9: int = 0
    x10: int = 0
    x11: int = 0
    x12: int = 0
    x13: int = 0
    x14: int = 0
    x15: int = 0
    x16: int = 0
    x17: int = 0
    x18: int = 0
    x19: int = 0
    x20: int = 0
    x21: int = 0
    x22: int = 0
    x23: int = 0
    x24: int = 0
    x25: int = 0
    x26: int = 0
    x27: int = 0
    x28: int = 0
    x29: int = 0
    x30: int = 0
    sp: int = 0
    ip: int = 0
    pstate: int = 0

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> UserRegs:
        """From the kernel's bytes (exactly ``SIZE``)."""
        return cls(*_FORMAT.unpack(data))

    def pack(self) -> bytes:
        """The bytes of the kernel's ``struct user_pt_regs``, ``SIZE`` of them."""
        return _FORMAT.pack(*_values(self))

    def copy(self) -> UserRegs:
        """Other registers with the same values, which may be changed by themselves."""
        return UserRegs(*_values(self))

    @property
    def in_syscall(self) -> bool:
        """Always false: the kernel does not let it be seen (see above)."""
        return False

    @property
    def is_compat(self) -> bool:
        """Whether the task runs 32-bit code."""
        return bool(self.pstate & _MODE32)

    @property
    def result(self) -> int:
        """What the last system call gave (unsigned)."""
        return self.x0

    def leave_syscall(self) -> None:
        """Nothing is made again as the task goes on."""

    def forget_branch(self) -> None:
        """What comes next is not where an indirect branch leads (which guarded code would have to say: BTYPE)."""
        self.pstate &= ~_BTYPE

    def emptied(self) -> UserRegs:
        """What a task that does nothing yet has, of this one's kind."""
        return UserRegs(pstate=self.pstate & _MODE32)

    def set_call(self, at: int, number: int, args: Sequence[int]) -> None:
        """Make a system call next, by the instruction at *at*."""
        words = [word & _MASK for word in args]
        self.x0, self.x1, self.x2, self.x3, self.x4, self.x5 = words + [0] * (6 - len(words))
        self.x8, self.ip = number, at
        self.forget_branch()


def of_new_task() -> UserRegs:
    """What a task has that does nothing yet."""
    return UserRegs()


def read_regs(tid: Pid) -> UserRegs:
    """Those of a stopped tracee; of one that runs 32-bit code nothing but that it does."""
    buffer = bytearray(SIZE)
    iov = bytearray(struct.pack("QQ", address_of(buffer), SIZE))
    syscall("ptrace(GETREGSET)", nr.ptrace, _PTRACE_GETREGSET, tid, _NT_PRSTATUS, address_of(iov))
    if struct.unpack_from("Q", iov, 8)[0] != SIZE:
        return UserRegs(pstate=_MODE32)
    return UserRegs.unpack(buffer)


def write_regs(tid: Pid, values: UserRegs) -> None:
    """The counterpart, all at once."""
    buffer = bytearray(values.pack())
    iov = bytearray(struct.pack("QQ", address_of(buffer), SIZE))
    syscall("ptrace(SETREGSET)", nr.ptrace, _PTRACE_SETREGSET, tid, _NT_PRSTATUS, address_of(iov))


def read_thread_pointer(tid: Pid) -> int:
    """Near which the C library of a stopped tracee keeps what is its thread's."""
    buffer = bytearray(8)
    iov = bytearray(struct.pack("QQ", address_of(buffer), len(buffer)))
    syscall("ptrace(GETREGSET)", nr.ptrace, _PTRACE_GETREGSET, tid, _NT_ARM_TLS, address_of(iov))
    return int.from_bytes(buffer, "little")


#: All members at once, in the kernel's order.
_values = attrgetter(*(field.name for field in fields(UserRegs)))
