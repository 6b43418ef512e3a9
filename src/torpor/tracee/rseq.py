"""Restartable sequences, as far as stopping a thread is concerned.

A thread that is stopped inside of a critical section and is sent elsewhere must resume at the section's abort handler,
as after any preemption; the kernel cannot do that for us once the instruction pointer has left the section.
Source: include/uapi/linux/rseq.h, kernel/rseq.c.
"""

from __future__ import annotations

import struct

from torpor.base.ids import Pid
from torpor.kernel import ptrace, vm
from torpor.kernel.arch.regs import UserRegs

_RSEQ_CS_OFFSET = 8
_RSEQ_CS = struct.Struct("<IIQQQ")
_SIGNATURE_SIZE = 4


def ip_outside_critical_section(tid: Pid, regs: UserRegs) -> UserRegs:
    """*regs*, at the abort handler if their ip is inside the thread's current critical section."""
    try:
        area, _size, _signature, _flags = ptrace.get_rseq(tid)
        if not area:
            return regs
        (cs_address,) = struct.unpack("<Q", vm.read(tid, area + _RSEQ_CS_OFFSET, 8))
        if not cs_address:
            return regs
        _version, _cs_flags, start, length, abort = _RSEQ_CS.unpack(vm.read(tid, cs_address, _RSEQ_CS.size))
    except OSError:
        return regs  # no rseq in this kernel, or a pointer that leads nowhere: nothing to protect
    if start <= regs.ip < start + length:
        regs = regs.copy()
        regs.ip = abort
    return regs
