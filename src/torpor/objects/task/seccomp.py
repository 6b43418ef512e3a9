"""seccomp(2): strict mode, and chains of filters.

Kernel view
    ``Seccomp:`` in ``/proc/PID/task/TID/status``; PTRACE_SECCOMP_GET_FILTER and PTRACE_SECCOMP_GET_METADATA, newest
    filter first.
Image
    ``seccomp_filter`` entries of ``seccomp.img``, each with the index of the one below it (``prev``);
    ``thread_core_entry.seccomp_mode`` and ``seccomp_filter``, the index of the newest.  Equal chains are stored once.
    Images of old have the mode in ``task_core_entry.old_seccomp_mode`` and ``old_seccomp_filter``.
Restore
    While the puppet still has CAP_SYS_ADMIN, with its filters suspended for us (PTRACE_O_SUSPEND_SECCOMP).  What all
    threads have in common is installed once, by SECCOMP_FILTER_FLAG_TSYNC in the main thread, so that threads share it
    as they did; the rest in each thread.
Limits
    Both ways need CAP_SYS_ADMIN and a torpor that is under no filter itself.  The supervisor of a
    SECCOMP_RET_USER_NOTIF filter is not connected again: such calls then fail with ENOSYS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torpor.base.errors import NotPermittedError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import ptrace
from torpor.kernel.arch import nr
from torpor.kernel.uapi.bpf_common import BPF_MAXINSNS
from torpor.kernel.uapi.prctl import PR_SET_SECCOMP
from torpor.kernel.uapi.seccomp import SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_SET_MODE_FILTER
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import OPTIONS

DISABLED, STRICT, FILTER = 0, 1, 2
_MODES = (m.seccomp_mode.disabled, m.seccomp_mode.strict, m.seccomp_mode.filter)
_SOCK_FILTER_SIZE = 8
_MAX_CHAIN = 4096


def dump(processes: Iterable[DumpProcess]) -> m.seccomp_entry:
    """Fill in the threads' modes; all chains.  The threads must be stopped, their filters suspended."""
    entry = m.seccomp_entry()
    known: dict[tuple[bytes, int, int], int] = {}
    for process in processes:
        for thread in process.threads:
            if mode := thread.status.seccomp_mode:
                thread.core.thread_core.seccomp_mode = _MODES[mode]
            if mode == FILTER:
                thread.core.thread_core.seccomp_filter = _dump_chain(thread, entry, known)
    return entry


def _dump_chain(thread: DumpThread, entry: m.seccomp_entry, known: dict[tuple[bytes, int, int], int]) -> int:
    chain: list[tuple[bytes, int]] = []
    while (program := ptrace.seccomp_filter(thread.tid, len(chain))) is not None:
        chain.append((program, ptrace.seccomp_filter_flags(thread.tid, len(chain))))
    below = -1
    for program, flags in reversed(chain):
        key = (program, flags, below)
        if key not in known:
            known[key] = len(entry.seccomp_filters)
            added = entry.seccomp_filters.add(filter=program)
            if flags:
                added.flags = flags
            if below >= 0:
                added.prev = below
        below = known[key]
    return below


def mode_of(thread: RestoreThread) -> int:
    """The thread's mode, in images new and old."""
    core = thread.core.thread_core
    if core.HasField("seccomp_mode"):
        return core.seccomp_mode
    return thread.process.core.tc.old_seccomp_mode


def assign_chains(processes: Iterable[RestoreProcess], entry: m.seccomp_entry) -> None:
    """Give each thread the filters it has to install.  ImageError where a chain is no chain."""
    for process in processes:
        if not process.is_zombie:
            chains = [_chain(entry.seccomp_filters, _newest(thread)) for thread in process.threads]
            n_shared = _n_shared(chains)
            for thread, chain in zip(process.threads, chains, strict=True):
                thread.filters = [entry.seccomp_filters[index] for index in chain]
                thread.n_shared_filters = n_shared


def _newest(thread: RestoreThread) -> int | None:
    if mode_of(thread) != FILTER:
        return None
    core = thread.core.thread_core
    return core.seccomp_filter if core.HasField("seccomp_mode") else thread.process.core.tc.old_seccomp_filter


def _chain(filters: Sequence[m.seccomp_filter], newest: int | None) -> list[int]:
    """Indices, the oldest first."""
    chain: list[int] = []
    index = newest
    while index is not None:
        if index >= len(filters) or len(chain) >= min(len(filters), _MAX_CHAIN):
            raise ImageError(f"seccomp.img: the chain of filters that ends in number {newest} is broken")
        one = filters[index]
        if not one.filter or len(one.filter) % _SOCK_FILTER_SIZE or len(one.filter) > BPF_MAXINSNS * _SOCK_FILTER_SIZE:
            raise ImageError(f"seccomp.img: filter {index} is no program")
        chain.append(index)
        index = one.prev if one.HasField("prev") else None
    return chain[::-1]


def _n_shared(chains: Sequence[list[int]]) -> int:
    """How many filters, from the oldest on, all of the chains have in common."""
    n_shared = 0
    for same in zip(*chains, strict=False):
        if len(set(same)) > 1:
            break
        n_shared += 1
    return n_shared


def restore(thread: RestoreThread, batch: Batch) -> None:
    """Suspend, then install: what all threads have in the main thread, which comes first.  Everything that the thread
    does for us afterwards is exempt.
    """
    mode = mode_of(thread)
    if mode == DISABLED:
        return
    try:
        ptrace.set_options(thread.runner.thread.tid, OPTIONS | ptrace.PTRACE_O_SUSPEND_SECCOMP)
    except PermissionError as error:
        raise NotPermittedError(
            f"pid {thread.process.ns_pid} uses seccomp", hint="its restore needs CAP_SYS_ADMIN, and no filter on torpor"
        ) from error
    if mode == STRICT:
        batch.call(nr.prctl, PR_SET_SECCOMP, STRICT, 0, 0, 0)
        return
    for index, one in enumerate(thread.filters):
        is_shared = index < thread.n_shared_filters
        if is_shared and not thread.is_leader:
            continue
        flags = one.flags & SECCOMP_FILTER_FLAG_LOG
        if is_shared and len(thread.process.threads) > 1:
            flags |= SECCOMP_FILTER_FLAG_TSYNC
        header = batch.pack("HHIQ", len(one.filter) // _SOCK_FILTER_SIZE, 0, 0, batch.data(one.filter))
        batch.call(nr.seccomp, SECCOMP_SET_MODE_FILTER, flags, header)
