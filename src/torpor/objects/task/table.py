"""The aspects of a task, in the order in which they are restored."""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.records import dataclass
from torpor.base.typed import IntEnum
from torpor.objects.arch import switches as arch_switches
from torpor.objects.memory import mm
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.objects.task import (
    creds,
    identity,
    itimers,
    keyrings,
    limits,
    lsm,
    membarrier,
    mempolicy,
    posix_timers,
    scheduling,
    seccomp,
    signals,
    stopped,
    subreaper,
    switches,
    threading,
    zombie,
)
from torpor.tracee.batch import Batch


class When(IntEnum):
    """When an aspect is restored; within one stage, process aspects come before thread aspects, each in table order.

    Where each stage stands among the phases of a restore, and why, is in ``torpor.engine.restore.phases``.
    """

    EARLY = 1
    """In the empty puppet, before it has memory or files (only process aspects)."""
    BUILD = 2
    """With memory, files and threads in place, and with all the privileges that we have."""
    CREDENTIALS = 3
    """In the same batch as BUILD, behind it: who the thread is."""
    SEALED = 4
    """In the same batch, behind the credentials: what cannot be taken back (no_new_privs, seccomp)."""
    LAST = 5
    """Every thread of every process has become who it is, and nothing else will be built.

    For what the steps before would disturb or set off: the dumpable flag, pending signals.
    """
    ARMED = 6
    """With the last calls that a process makes for us: timers start (only process aspects)."""


@dataclass(frozen=True, slots=True)
class ThreadAspect:
    """``look(thread, mask when stopped)`` and ``ask(thread, batch)`` of a dump; ``restore(thread, batch)``.

    What is asked is the same for all threads of the same :func:`shape`, so a batch may be run by one after the other:
    *thread* is whoever has answered when what ``ask`` leaves for then is done, which may be when it runs again.
    """

    name: str
    look: Callable[[DumpThread, int], None] | None
    ask: Callable[[DumpThread, Batch], None] | None
    restore: Callable[[RestoreThread, Batch], None] | None
    when: When = When.BUILD


@dataclass(frozen=True, slots=True)
class ProcessAspect:
    """``dump(process, batch)`` and ``restore(process, batch)``, in the main thread."""

    name: str
    dump: Callable[[DumpProcess, Batch], None] | None
    restore: Callable[[RestoreProcess, Batch], None] | None
    when: When = When.BUILD


def _ask_uncarried(process: DumpProcess, batch: Batch) -> None:
    from torpor.objects.arch import uncarried  # which no restore needs

    uncarried.ask(process, batch)


PROCESS_ASPECTS: tuple[ProcessAspect, ...] = (
    ProcessAspect("personality, OOM score", identity.dump, identity.restore),
    ProcessAspect("signal actions", signals.dump_process, signals.restore_process),
    ProcessAspect("local descriptor table", _ask_uncarried, None),
    ProcessAspect("membarrier", membarrier.dump, membarrier.restore),
    ProcessAspect("limits", lambda process, batch: limits.dump(process), limits.restore),
    ProcessAspect("coredump filter", None, mm.restore_coredump_filter),
    # As root, or within the limit on locked memory, which is set by now.
    ProcessAspect("locked memory to come", None, mm.restore_lock_future),
    ProcessAspect("switches of the memory", switches.dump_memory, switches.restore_memory),
    ProcessAspect("MDWE", None, switches.restore_mdwe, When.SEALED),
    ProcessAspect("POSIX timers", posix_timers.dump, posix_timers.restore),
    ProcessAspect("stopped or not", stopped.dump, None),
    ProcessAspect("exit signal", lambda process, batch: zombie.dump_exit_signal(process), None),
    ProcessAspect("registers permitted", arch_switches.dump_permission, arch_switches.restore_permission, When.EARLY),
    ProcessAspect("subreaper", subreaper.dump, subreaper.restore, When.EARLY),
    ProcessAspect("waits for stopped children", None, stopped.restore_waited, When.LAST),
    ProcessAspect("SIGCHLD of our making", None, signals.flush_sigchld, When.LAST),
    # A change of credentials in any thread resets it.
    ProcessAspect("dumpable", None, mm.restore_dumpable, When.LAST),
    # Pending signals count against it.
    ProcessAspect("limit of queued signals", None, limits.restore_signal_limit, When.ARMED),
    ProcessAspect("POSIX timers, armed", None, posix_timers.arm, When.ARMED),
    ProcessAspect("interval timers", itimers.dump, itimers.restore, When.ARMED),
)

THREAD_ASPECTS: tuple[ThreadAspect, ...] = (
    ThreadAspect(
        "alternate stack, mask",
        signals.look_at_thread,
        signals.ask_thread,
        lambda thread, batch: signals.restore_thread(thread.core, batch),
    ),
    ThreadAspect(
        "library registrations",
        lambda thread, mask: threading.look(thread),
        threading.ask,
        lambda thread, batch: threading.restore(thread.core, batch),
    ),
    ThreadAspect("scheduling", lambda thread, mask: scheduling.look(thread), scheduling.ask, scheduling.restore),
    ThreadAspect("switches", None, switches.ask_thread, switches.restore_thread),
    ThreadAspect("keyrings", None, keyrings.ask, keyrings.restore),
    ThreadAspect("memory policy", None, mempolicy.ask, mempolicy.restore),
    # With the privileges that installing filters needs; dumped for the whole tree at once (seccomp.dump).
    ThreadAspect("seccomp", None, None, seccomp.restore),
    # Behind everything that a confined task may not do.
    ThreadAspect("security labels, opened", lambda thread, mask: lsm.look(thread), None, lsm.open_attributes),
    ThreadAspect(
        "credentials",
        lambda thread, mask: creds.look(thread),
        creds.ask,
        lambda thread, batch: creds.restore(thread.core, thread.status, thread.process.idmaps, batch),
        When.CREDENTIALS,
    ),
    # With no_new_privs a profile can only be narrowed.
    ThreadAspect("security labels", None, None, lsm.restore, When.SEALED),
    ThreadAspect(
        "no_new_privs", None, None, lambda thread, batch: creds.restore_no_new_privs(thread.core, batch), When.SEALED
    ),
    # A change of credentials clears it.
    ThreadAspect("parent-death signal", None, None, creds.restore_pdeath_signal, When.SEALED),
    ThreadAspect("pending signals", None, None, signals.restore_pending, When.LAST),
)


def shape(thread: DumpThread) -> object:
    """What the questions to a thread, which has been looked at, go by; None for one that has questions of its own."""
    if not threading.is_rseq_told():
        return None
    return switches.may_be_flusher(thread)


def look_at_thread(thread: DumpThread, mask: int) -> None:
    """Note what of a thread can be seen from outside; *mask*: its signal mask when it was stopped."""
    for aspect in THREAD_ASPECTS:
        if aspect.look is not None:
            aspect.look(thread, mask)


def ask_thread(thread: DumpThread, batch: Batch) -> None:
    """Add the questions to a thread."""
    for aspect in THREAD_ASPECTS:
        if aspect.ask is not None:
            aspect.ask(thread, batch)


def restore_process(when: When, process: RestoreProcess, batch: Batch) -> None:
    """Add the calls of all process aspects of the stage *when*."""
    for aspect in PROCESS_ASPECTS:
        if aspect.when is when and aspect.restore is not None:
            aspect.restore(process, batch)


def restore_thread(when: When, thread: RestoreThread, batch: Batch) -> None:
    """Add the calls of all thread aspects of the stage *when*."""
    for aspect in THREAD_ASPECTS:
        if aspect.when is when and aspect.restore is not None:
            aspect.restore(thread, batch)
