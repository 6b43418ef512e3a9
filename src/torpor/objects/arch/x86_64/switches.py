"""Switches of arch_prctl(2): whether CPUID may be asked, and whether a process may use AMX (ARCH_GET_XCOMP_PERM)."""

from __future__ import annotations

from torpor.kernel.arch.x86_64 import nr
from torpor.objects.arch.switch import VALUE, Switch
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_ARCH_GET_CPUID, _ARCH_SET_CPUID = 0x1011, 0x1012
_ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM = 0x1022, 0x1023
_XTILE_DATA = 18

#: Of a thread.
THREAD_SWITCHES: tuple[Switch, ...] = (
    Switch("torpor_cpuid", (nr.arch_prctl, _ARCH_GET_CPUID, 0), (nr.arch_prctl, _ARCH_SET_CPUID, VALUE), 1),
)


def dump_permission(process: DumpProcess, batch: Batch) -> None:
    """Ask whether it may use AMX."""
    room = batch.out(8)
    asked = batch.call(nr.arch_prctl, _ARCH_GET_XCOMP_PERM, room, may_fail=True)

    def collect() -> None:
        if not asked.errno and int.from_bytes(room.bytes(), "little") >> _XTILE_DATA & 1:
            process.core.tc.torpor_xcomp_perm = _XTILE_DATA

    batch.then(collect)


def restore_permission(process: RestoreProcess, batch: Batch) -> None:
    """Ask for it again, before any thread has such registers.  (The processor is known to have them.)"""
    if process.core.tc.torpor_xcomp_perm:
        batch.call(nr.arch_prctl, _ARCH_REQ_XCOMP_PERM, process.core.tc.torpor_xcomp_perm, may_fail=True)
