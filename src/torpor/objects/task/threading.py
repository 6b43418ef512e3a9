"""What a C library registers for a thread: name, robust list, tid address, rseq area.

Kernel view
    get_robust_list(2) and PTRACE_GET_RSEQ_CONFIGURATION from outside, PR_GET_TID_ADDRESS inside.
Image
    ``thread_core_entry.comm``, ``futex_rla``, ``rseq_entry``; the machine's ``clear_tid_addr``.
Restore
    The same calls in the thread itself.
Limits
    A kernel before 5.13 does not tell the rseq area.  There it is looked for where C libraries have it, near the thread
    pointer, by taking it back with a wrong signature, which fails and tells; one that is elsewhere is refused by name.
    A robust list whose head has another size than this kernel's is left out.
"""

from __future__ import annotations

import errno

from torpor.base.errors import RefusedError
from torpor.images import messages as m
from torpor.images.text import get_text, set_text
from torpor.kernel import ptrace
from torpor.kernel.arch import nr, regs
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.prctl import PR_GET_TID_ADDRESS, PR_SET_NAME
from torpor.kernel.uapi.rseq import RSEQ_FLAG_UNREGISTER
from torpor.objects.arch import core as image
from torpor.objects.model import DumpThread
from torpor.tracee import rseq
from torpor.tracee.batch import Batch

_ROBUST_HEAD_SIZE = 24
#: No address of a program's.
_NOWHERE = 1 << 63
#: That this kernel has told of an area, or that there is none.
_told: set[bool] = set()


def look(thread: DumpThread) -> None:
    """Fill in what can be seen from outside."""
    core = thread.core
    set_text(core.thread_core, "comm", thread.status.name)
    room = bytearray(16)
    at = address_of(room)
    syscall("get_robust_list", nr.get_robust_list, thread.tid, at, at + 8)
    core.thread_core.futex_rla = int.from_bytes(room[:8], "little")
    core.thread_core.futex_rla_len = int.from_bytes(room[8:], "little")
    try:
        address, size, signature, _flags = ptrace.get_rseq(thread.tid)
    except OSError:
        return
    _told.add(True)
    _set_rseq(core, address, size, signature)


def is_rseq_told() -> bool:
    """Whether this kernel tells of rseq areas, once a thread has been looked at."""
    return bool(_told)


def ask(thread: DumpThread, batch: Batch) -> None:
    """Ask for the rest."""
    if not is_rseq_told():
        _look_for_rseq(thread, batch)
    tid_room = batch.out(8)
    batch.call(nr.prctl, PR_GET_TID_ADDRESS, tid_room)

    def collect() -> None:
        image.set_clear_tid(thread.core, int.from_bytes(tid_room.bytes(), "little"))

    batch.then(collect)


def _set_rseq(core: m.core_entry, address: int, size: int, signature: int) -> None:
    if address:
        core.thread_core.rseq_entry.rseq_abi_pointer = address
        core.thread_core.rseq_entry.rseq_abi_size = size
        core.thread_core.rseq_entry.signature = signature


def _look_for_rseq(thread: DumpThread, batch: Batch) -> None:
    """Have the thread try, without changing anything, whether it has an area, and which of some places that is."""
    is_there = batch.call(nr.rseq, _NOWHERE, rseq.SIZE, 0, 0, may_fail=True)
    tried = [
        (at, batch.call(nr.rseq, at, rseq.SIZE, RSEQ_FLAG_UNREGISTER, regs.RSEQ_SIGNATURE ^ 1, may_fail=True))
        for at in rseq.likely_areas(thread.tid)
    ]

    def collect() -> None:
        # Where none is registered the address is looked at, and is no one's; where one is, it is another's.
        if is_there.errno != errno.EINVAL:
            return
        address = next((at for at, answer in tried if answer.errno == errno.EPERM), 0)
        if not address:
            raise RefusedError(
                f"thread {thread.tid} of {thread.process.describe()} has restartable sequences (rseq), and this kernel "
                "(before 5.13) does not tell where",
                hint="start it with GLIBC_TUNABLES=glibc.pthread.rseq=0 if it does not need them, or on a newer kernel",
            )
        _set_rseq(thread.core, address, rseq.SIZE, regs.RSEQ_SIGNATURE)

    batch.then(collect)


def restore(core: m.core_entry, batch: Batch) -> None:
    """Name the thread, and register what the images have: tid address, robust list, rseq area."""
    thread = core.thread_core
    comm = thread.comm if thread.HasField("comm") else core.tc.comm
    batch.call(nr.prctl, PR_SET_NAME, batch.path(get_text(comm)))
    batch.call(nr.set_tid_address, image.clear_tid_of(core))
    if thread.futex_rla_len == _ROBUST_HEAD_SIZE:
        batch.call(nr.set_robust_list, thread.futex_rla, thread.futex_rla_len)
    if thread.HasField("rseq_entry") and thread.rseq_entry.rseq_abi_pointer:
        entry = thread.rseq_entry
        batch.call(nr.rseq, entry.rseq_abi_pointer, entry.rseq_abi_size, 0, entry.signature)
