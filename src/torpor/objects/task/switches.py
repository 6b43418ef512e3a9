"""Switches of a thread, or of all that share its memory, that prctl(2) and its like read and set.

Kernel view
    PR_GET_TSC, PR_MCE_KILL_GET, PR_GET_IO_FLUSHER, PR_GET_SPECULATION_CTRL of a thread;
    PR_GET_MEMORY_MERGE, PR_GET_MDWE, PR_GET_THP_DISABLE, PR_FUTEX_HASH_GET_SLOTS of the memory; what only this
    machine has (``objects/arch``).  All only inside.
Image
    A field of ``thread_core_entry`` or ``mm_entry`` each, where the value is not the kernel's default;
    ``thp_disabled`` is CRIU's.
Restore
    The same calls.  All are inherited by clone, so the root puppet has them set to the defaults at first
    (``reset``): what our callers chose for us is not the tree's.  MDWE, which forbids to make code of what was
    writable and cannot be taken back, comes with what is sealed: memory is complete by then.
Limits
    Slots of futexes that are as many as the kernel may choose by itself (kernel/futex/core.c,
    futex_hash_allocate_default) are left to it, for it does not tell who chose them.
    Other readers leave the tree without.  Without MDWE it would be less confined than it was: such images have a
    version that others refuse (``inventory_entry.img_version``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.uapi.prctl import PR_FUTEX_HASH, PR_FUTEX_HASH_GET_SLOTS, PR_FUTEX_HASH_SET_SLOTS, PR_SPEC_PRCTL
from torpor.objects.arch import switches as arch
from torpor.objects.arch.switch import ROOM, VALUE, Switch
from torpor.objects.memory.mm import mm_of
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch, Data, Result

PR_SET_MDWE, PR_GET_MDWE = 65, 66
#: Of /proc/PID/stat's flags (include/linux/sched.h): one of the two that PR_SET_IO_FLUSHER sets.
PF_MEMALLOC_NOIO = 1 << 19
_CAP_SYS_RESOURCE = 1 << 24

_SPECULATION: tuple[Switch, ...] = (
    Switch("torpor_spec_store_bypass", (nr.prctl, 52, 0, 0, 0, 0), (nr.prctl, 53, 0, VALUE, 0, 0), 2),
    Switch("torpor_spec_indirect_branch", (nr.prctl, 52, 1, 0, 0, 0), (nr.prctl, 53, 1, VALUE, 0, 0), 2),
    Switch("torpor_spec_l1d_flush", (nr.prctl, 52, 2, 0, 0, 0), (nr.prctl, 53, 2, VALUE, 0, 0), 4),
)
_SPECULATION_FIELDS = frozenset(switch.field for switch in _SPECULATION)
#: For those with CAP_SYS_RESOURCE.
_IO_FLUSHER = Switch("torpor_io_flusher", (nr.prctl, 58, 0, 0, 0, 0), (nr.prctl, 57, VALUE, 0, 0, 0), 0)
THREAD_SWITCHES: tuple[Switch, ...] = (
    Switch("torpor_tsc", (nr.prctl, 25, ROOM), (nr.prctl, 26, VALUE), 1),
    Switch("torpor_mce_kill", (nr.prctl, 34, 0, 0, 0, 0), (nr.prctl, 33, 1, VALUE, 0, 0), 2),
    _IO_FLUSHER,
    *arch.THREAD_SWITCHES,
    *_SPECULATION,
)
_NOT_PRIVILEGED = tuple(switch for switch in THREAD_SWITCHES if switch is not _IO_FLUSHER)
MEMORY_SWITCHES: tuple[Switch, ...] = (
    Switch("torpor_ksm", (nr.prctl, 68, 0, 0, 0, 0), (nr.prctl, 67, VALUE, 0, 0, 0), 0),
    Switch("torpor_thp_disable", (nr.prctl, 42, 0, 0, 0, 0), (nr.prctl, 41, 1, VALUE, 0, 0), 0),
)
_MDWE = Switch("torpor_mdwe", (nr.prctl, PR_GET_MDWE, 0, 0, 0, 0), (nr.prctl, PR_SET_MDWE, VALUE, 0, 0, 0), 0)
_FUTEX_SLOTS = Switch(
    "torpor_futex_slots",
    (nr.prctl, PR_FUTEX_HASH, PR_FUTEX_HASH_GET_SLOTS, 0, 0, 0),
    (nr.prctl, PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, VALUE, 0, 0),
    0,
)
#: The least that the kernel chooses by itself; the most that an image may.
_LEAST_SLOTS, _MOST_SLOTS = 16, 1 << 16
#: PR_THP_DISABLE_EXCEPT_ADVISED and the like: what PR_GET_THP_DISABLE tells beside the switch itself.
_THP = MEMORY_SWITCHES[1]


def ask_thread(thread: DumpThread, batch: Batch) -> None:
    """Ask for those of a thread."""
    switches = THREAD_SWITCHES if may_be_flusher(thread) else _NOT_PRIVILEGED
    _ask(switches, lambda: thread.core.thread_core, batch)


def may_be_flusher(thread: DumpThread) -> bool:
    """Whether it is asked for PR_GET_IO_FLUSHER, which a security module might deny, and log, to others."""
    is_able = thread.status.cap_effective & _CAP_SYS_RESOURCE
    if not is_able or not lsm.active():
        return bool(is_able)
    return bool(read_stat(thread.process.pid, thread.tid).flags & PF_MEMALLOC_NOIO)


def dump_memory(process: DumpProcess, batch: Batch) -> None:
    """Ask for those of the memory."""
    _ask((*MEMORY_SWITCHES, _MDWE), lambda: process.mm, batch)
    slots = batch.call(*_FUTEX_SLOTS.read, may_fail=True)  # type: ignore[arg-type]

    def collect() -> None:
        if not slots.errno and not _is_the_kernels(slots.value, len(process.threads)):
            process.mm.torpor_futex_slots = slots.value

    batch.then(collect)


def _is_the_kernels(n_slots: int, n_threads: int) -> bool:
    """Whether it chose them itself: none before there is a second thread, then by how many there were at most."""
    if not n_slots:
        return n_threads == 1
    most = 4 * (os.cpu_count() or 1)
    return _LEAST_SLOTS <= n_slots <= max(_LEAST_SLOTS, 1 << (most - 1).bit_length())


def _ask(switches: tuple[Switch, ...], entry_of: Callable[[], m.thread_core_entry | m.mm_entry], batch: Batch) -> None:
    asked: list[tuple[Switch, Result, Data | None]] = []
    for switch in switches:
        room = batch.out(8) if ROOM in switch.read else None
        words = [room if word == ROOM else word for word in switch.read]
        asked.append((switch, batch.call(*words, may_fail=True), room))  # type: ignore[arg-type]

    def collect() -> None:
        for switch, result, room in asked:
            value = result.value if room is None else int.from_bytes(room.bytes()[:4], "little")
            if result.errno:
                continue  # a kernel or processor without it, or a switch that is for others
            if switch.field in _SPECULATION_FIELDS:
                # Without the bit it is not the thread's to choose.
                value = value & ~PR_SPEC_PRCTL if value & PR_SPEC_PRCTL else switch.default
            elif switch is _THP:
                entry_of().thp_disabled = bool(value)  # type: ignore[union-attr]
                value &= ~1
            if value != switch.default:
                setattr(entry_of(), switch.field, value)

    batch.then(collect)


def reset(batch: Batch) -> None:
    """In the root puppet: the defaults, whatever was inherited from us."""
    for switch in (*THREAD_SWITCHES, *MEMORY_SWITCHES[:1]):
        _set(switch, switch.default, batch)
    batch.call(nr.prctl, 41, 0, 0, 0, 0, may_fail=True)


def restore_thread(thread: RestoreThread, batch: Batch) -> None:
    """Set those of a thread that are not the default."""
    for switch, value in _given(THREAD_SWITCHES, thread.core.thread_core):
        _try(f"thread {thread.ns_tid}", switch, value, batch)


def restore_memory(process: RestoreProcess, batch: Batch) -> None:
    """Set those of the memory.  (That for huge pages is ``mm``'s.)"""
    mm = mm_of(process)
    if mm.torpor_futex_slots > _MOST_SLOTS:
        raise ImageError(f"pid {process.ns_pid} would have {mm.torpor_futex_slots} slots for futexes")
    for switch, value in _given((*MEMORY_SWITCHES[:1], _FUTEX_SLOTS), mm):
        _try(f"pid {process.ns_pid}", switch, value, batch)


def restore_mdwe(process: RestoreProcess, batch: Batch) -> None:
    """No code may be made of what was writable from here on."""
    mm = mm_of(process)
    if not mm.HasField("torpor_mdwe"):
        return
    done = _set(_MDWE, mm.torpor_mdwe, batch)

    def check() -> None:
        if done.errno:
            raise RestoreError(
                f"pid {process.ns_pid} cannot be forbidden to make code of what was writable (MDWE):"
                f" {os.strerror(done.errno)}",
                hint="this needs Linux 6.3 or later",
            )

    batch.then(check)


def _given(switches: tuple[Switch, ...], entry: m.thread_core_entry | m.mm_entry) -> Iterator[tuple[Switch, int]]:
    for switch in switches:
        if entry.HasField(switch.field):  # type: ignore[arg-type]
            yield switch, getattr(entry, switch.field)


def _try(who: str, switch: Switch, value: int, batch: Batch) -> None:
    """Set it; a machine that has no such switch is a warning."""
    done = _set(switch, value, batch)

    def check() -> None:
        if done.errno:
            what = switch.field.removeprefix("torpor_")
            log.warn(f"{who} does not get its {what} of {value}: {os.strerror(done.errno)}")

    batch.then(check)


def _set(switch: Switch, value: int, batch: Batch) -> Result:
    words = [value if word == VALUE else word for word in switch.set]
    return batch.call(*words, may_fail=True)  # type: ignore[arg-type]
