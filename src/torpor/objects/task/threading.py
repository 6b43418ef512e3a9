"""What a C library registers for a thread: name, robust list, tid address, rseq area.

Kernel view
    get_robust_list(2) and PTRACE_GET_RSEQ_CONFIGURATION from outside, PR_GET_TID_ADDRESS inside.
Image
    ``thread_core_entry.comm``, ``futex_rla``, ``rseq_entry``; the machine's ``clear_tid_addr``.
Restore
    The same calls in the thread itself.
Limits
    A kernel before 5.13 does not tell the rseq area. A robust list whose head has another size than this kernel's is
    left out.
"""

from __future__ import annotations

from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.text import get_text, set_text
from torpor.kernel import ptrace
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.prctl import PR_GET_TID_ADDRESS, PR_SET_NAME
from torpor.objects.arch import core as image
from torpor.objects.model import DumpThread
from torpor.tracee.batch import Batch

_ROBUST_HEAD_SIZE = 24


def dump(thread: DumpThread, batch: Batch) -> None:
    """Fill in the fields."""
    core = thread.core
    set_text(core.thread_core, "comm", thread.status.name)
    room = bytearray(16)
    at = address_of(room)
    syscall("get_robust_list", nr.get_robust_list, thread.tid, at, at + 8)
    core.thread_core.futex_rla = int.from_bytes(room[:8], "little")
    core.thread_core.futex_rla_len = int.from_bytes(room[8:], "little")
    address, size, signature, _flags = _rseq(thread.tid)
    if address:
        core.thread_core.rseq_entry.rseq_abi_pointer = address
        core.thread_core.rseq_entry.rseq_abi_size = size
        core.thread_core.rseq_entry.signature = signature
    tid_room = batch.out(8)
    batch.call(nr.prctl, PR_GET_TID_ADDRESS, tid_room)

    def collect() -> None:
        image.set_clear_tid(core, int.from_bytes(tid_room.bytes(), "little"))

    batch.then(collect)


def _rseq(tid: Pid) -> tuple[int, int, int, int]:
    try:
        return ptrace.get_rseq(tid)
    except OSError:
        return 0, 0, 0, 0  # before 5.13: glibc of that time registers none


def restore(core: m.core_entry, batch: Batch) -> None:
    """Register everything again."""
    thread = core.thread_core
    comm = thread.comm if thread.HasField("comm") else core.tc.comm
    batch.call(nr.prctl, PR_SET_NAME, batch.path(get_text(comm)))
    batch.call(nr.set_tid_address, image.clear_tid_of(core))
    if thread.futex_rla_len == _ROBUST_HEAD_SIZE:
        batch.call(nr.set_robust_list, thread.futex_rla, thread.futex_rla_len)
    if thread.HasField("rseq_entry") and thread.rseq_entry.rseq_abi_pointer:
        entry = thread.rseq_entry
        batch.call(nr.rseq, entry.rseq_abi_pointer, entry.rseq_abi_size, 0, entry.signature)
