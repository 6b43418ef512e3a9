"""The numbers in ``mm_struct``: where code, data, heap, stack, arguments and environment lie; auxv; the executable.

Kernel view
    ``/proc/PID/stat`` and ``/proc/PID/auxv``; brk(2) inside the task for the end of the heap.
    ``/proc/PID/coredump_filter``.  That memory to be mapped will be locked (mlockall(2)) is seen by our own.
Image
    ``mm_entry``; ``torpor_auxv`` where the vector is longer than CRIU reads; ``torpor_coredump_filter``;
    ``torpor_lock_future``.
Restore
    PR_SET_MM_MAP, which needs CAP_CHECKPOINT_RESTORE only, and checks that the addresses lie in mappings; the
    executable by descriptor, possible once no mapping of the old one is left.
Limits
    A dumpable flag of 2 (root only) is what the kernel gives by itself; nobody can set it.  A coredump_filter that
    cannot be written is warned of.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from torpor.base import log
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import read_smaps
from torpor.kernel.procfs.small import read_bytes
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.mman import MCL_FUTURE, MCL_ONFAULT
from torpor.kernel.uapi.prctl import PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_MM, PR_SET_MM_MAP, PR_SET_THP_DISABLE
from torpor.objects.memory.vmas import is_locked_on_fault
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Arg, Batch

#: The most words that CRIU takes; kernels have more by now, so all of them stand in a field of our own.
_CRIU_AUXV = 44
_NO_EXE = 0xFFFFFFFF
_MM_MAP = "QQQQQQQQQQQQII"
_SUID_DUMP_ROOT = 2


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in ``mm_entry`` but for its mappings and executable."""
    mm, stat = process.mm, process.stat
    mm.mm_start_code, mm.mm_end_code = stat.start_code, stat.end_code
    mm.mm_start_data, mm.mm_end_data = stat.start_data, stat.end_data
    mm.mm_start_stack, mm.mm_start_brk = stat.start_stack, stat.start_brk
    mm.mm_arg_start, mm.mm_arg_end = stat.arg_start, stat.arg_end
    mm.mm_env_start, mm.mm_env_end = stat.env_start, stat.env_end
    data = read_bytes(f"/proc/{process.pid}/auxv")
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    mm.mm_saved_auxv.extend(words[:_CRIU_AUXV])
    if any(words[_CRIU_AUXV:]):  # more than its end
        mm.torpor_auxv.extend(words)
    with suppress(FileNotFoundError):  # a kernel without core files
        mm.torpor_coredump_filter = _read_coredump_filter(process.pid)
    if read_status(process.pid).locked > process.status.locked:
        mm.torpor_lock_future = MCL_FUTURE | (MCL_ONFAULT if _is_locked_on_fault(process) else 0)
    mm.thp_disabled = not process.status.thp_enabled
    brk = batch.call(nr.brk, 0)
    dumpable = batch.call(nr.prctl, PR_GET_DUMPABLE)

    def collect() -> None:
        mm.mm_brk = brk.value
        mm.dumpable = dumpable.value

    batch.then(collect)


def _is_locked_on_fault(process: DumpProcess) -> bool:
    """Whether memory that was mapped last, which is ours, is locked only once it is touched."""
    known = {vma.start for vma in process.maps}
    return any(is_locked_on_fault(vma.flags) for vma in read_smaps(process.pid) if vma.start not in known)


def restore_coredump_filter(process: RestoreProcess, batch: Batch) -> None:
    """Written by us: at once, *batch* is not used."""
    del batch
    mm = mm_of(process)
    if mm.HasField("torpor_coredump_filter"):
        set_coredump_filter(process.pid, mm.torpor_coredump_filter)


def set_coredump_filter(pid: Pid, value: int) -> None:
    """What of the memory of *pid* goes into its core file, if that is another than now."""
    try:
        if _read_coredump_filter(pid) != value:
            with open(f"/proc/{pid}/coredump_filter", "w", encoding="ascii") as stream:
                stream.write(hex(value))
    except FileNotFoundError:
        return
    except OSError as error:
        log.warn(f"pid {pid} does not get its coredump_filter of {value:#x}: {error.strerror}")


def _read_coredump_filter(pid: Pid) -> int:
    return int(read_bytes(f"/proc/{pid}/coredump_filter") or b"0", 16)


def restore_lock_future(process: RestoreProcess, batch: Batch) -> None:
    """With all mappings there: only what will be mapped is locked."""
    mm = mm_of(process)
    if mm.torpor_lock_future:
        batch.call(nr.mlockall, mm.torpor_lock_future & (MCL_FUTURE | MCL_ONFAULT))


def restore(process: RestoreProcess, exe_fd: Arg | None, batch: Batch) -> None:
    """Set everything at once.  All mappings must be in place."""
    mm = mm_of(process)
    words = mm.torpor_auxv or mm.mm_saved_auxv
    auxv = batch.data(struct.pack(f"<{len(words)}Q", *words))
    fd = exe_fd if isinstance(exe_fd, int) else _NO_EXE
    numbers = (
        mm.mm_start_code, mm.mm_end_code, mm.mm_start_data, mm.mm_end_data, mm.mm_start_brk, mm.mm_brk,
        mm.mm_start_stack, mm.mm_arg_start, mm.mm_arg_end, mm.mm_env_start, mm.mm_env_end,
    )  # fmt: skip
    packed = batch.pack(_MM_MAP, *numbers, auxv, auxv.size, fd)
    batch.call(nr.prctl, PR_SET_MM, PR_SET_MM_MAP, packed, packed.size, 0)
    if mm.thp_disabled:
        batch.call(nr.prctl, PR_SET_THP_DISABLE, 1, mm.torpor_thp_disable, 0, 0)


def restore_dumpable(process: RestoreProcess, batch: Batch) -> None:
    """After the credentials, whose change resets it.  2 (root only) is what the kernel gives, nobody can set it."""
    mm = mm_of(process)
    if mm.HasField("dumpable") and mm.dumpable != _SUID_DUMP_ROOT:
        batch.call(nr.prctl, PR_SET_DUMPABLE, mm.dumpable)


def mm_of(process: RestoreProcess) -> m.mm_entry:
    """The process's mm image; a zombie has none and must not be asked."""
    if process.mm is None:
        raise ValueError(f"pid {process.ns_pid} is a zombie")
    return process.mm
