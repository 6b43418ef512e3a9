"""Restartable sequences, as far as stopping a thread is concerned.

A thread that is stopped inside of a critical section and is sent elsewhere must resume at the section's abort handler,
as after any preemption; the kernel cannot do that for us once the instruction pointer has left the section.

A kernel before 5.13 does not tell where a thread's area is: it is looked for where C libraries have it, and those who
have one elsewhere are told of no abort.
Source: include/uapi/linux/rseq.h, kernel/rseq.c.
"""

from __future__ import annotations

import struct

from torpor.base.ids import Pid
from torpor.kernel import ptrace, vm
from torpor.kernel.arch.regs import RSEQ_SIGNATURE, UserRegs, read_thread_pointer
from torpor.kernel.vm import PAGE_SIZE

_RSEQ_CS_OFFSET = 8
_RSEQ_CS = struct.Struct("<IIQQQ")
_SIGNATURE_SIZE = 4
#: Of the area as all C libraries have registered it, until kernels told of it; it is aligned likewise.
SIZE = 32
#: In the descriptor of a thread (glibc 2.35 to 2.40), or behind, or in thread-local storage, below or above.
_BELOW, _ABOVE = 4096, 3072
_MAX_PROCESSORS = 8192


def ip_outside_critical_section(tid: Pid, regs: UserRegs) -> UserRegs:
    """*regs*, at the abort handler if their ip is inside the thread's current critical section."""
    try:
        area, _size, signature, _flags = ptrace.get_rseq(tid)
    except OSError:
        areas, signature = likely_areas(tid), RSEQ_SIGNATURE
    else:
        areas = [area] if area else []
    for area in areas:
        abort = _abort_of(tid, area, signature, regs.ip)
        if abort is not None:
            regs = regs.copy()
            regs.ip = abort
            break
    return regs


def _abort_of(tid: Pid, area: int, signature: int, ip: int) -> int | None:
    """The handler, behind its *signature*, of the critical section noted in *area*, if *ip* is in that."""
    try:
        (cs_address,) = struct.unpack("<Q", vm.read(tid, area + _RSEQ_CS_OFFSET, 8))
        if not cs_address:
            return None
        _version, _cs_flags, start, length, abort = _RSEQ_CS.unpack(vm.read(tid, cs_address, _RSEQ_CS.size))
        if not start <= ip < start + length:
            return None
        (found,) = struct.unpack("<I", vm.read(tid, abort - _SIGNATURE_SIZE, _SIGNATURE_SIZE))
    except (OSError, struct.error):
        return None  # what leads nowhere: nothing to protect
    # What stands elsewhere may look like an area; the kernel asks for this as well before it goes there.
    return int(abort) if found == signature else None


def likely_areas(tid: Pid) -> list[int]:
    """Where, near its thread pointer, the number of a processor stands twice, as the kernel writes it into an area."""
    try:
        pointer = read_thread_pointer(tid) & -SIZE
    except OSError:
        return []
    if pointer < _BELOW:
        return []
    found = []
    for start in range(pointer - _BELOW & -PAGE_SIZE, pointer + _ABOVE, PAGE_SIZE):
        try:
            words = struct.unpack(f"{PAGE_SIZE // 4}I", vm.read(tid, start, PAGE_SIZE))
        except OSError:
            continue  # nothing is mapped there
        places = range(0, len(words), SIZE // 4)
        found += [start + 4 * at for at in places if words[at] == words[at + 1] < _MAX_PROCESSORS]
    return [at for at in found if pointer - _BELOW <= at < pointer + _ABOVE]
