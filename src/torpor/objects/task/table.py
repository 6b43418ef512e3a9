"""The aspects of a task, in the order in which they are restored."""

from __future__ import annotations

import enum
from collections.abc import Callable

from torpor.base.records import dataclass
from torpor.objects.memory import mm
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess, RestoreThread
from torpor.objects.task import creds, identity, signals, threading
from torpor.tracee.batch import Batch


class When(enum.IntEnum):
    """When an aspect is restored; within one stage, process aspects come before thread aspects, each in table order.

    Where each stage stands among the phases of a restore, and why, is in ``torpor.engine.phases``.
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

    For what the steps before would disturb or set off: the dumpable flag, armed timers, pending signals.
    """


@dataclass(frozen=True, slots=True)
class ThreadAspect:
    """``dump(thread, mask when stopped, batch)``; ``restore(thread, batch)``."""

    name: str
    dump: Callable[[DumpThread, int, Batch], None] | None
    restore: Callable[[RestoreThread, Batch], None] | None
    when: When = When.BUILD


@dataclass(frozen=True, slots=True)
class ProcessAspect:
    """``dump(process, batch)`` and ``restore(process, batch)``, in the main thread."""

    name: str
    dump: Callable[[DumpProcess, Batch], None] | None
    restore: Callable[[RestoreProcess, Batch], None] | None
    when: When = When.BUILD


PROCESS_ASPECTS: tuple[ProcessAspect, ...] = (
    ProcessAspect("personality, OOM score", identity.dump, identity.restore),
    ProcessAspect("signal actions", signals.dump_process, signals.restore_process),
    # A change of credentials in any thread resets it.
    ProcessAspect("dumpable", None, mm.restore_dumpable, When.LAST),
)

THREAD_ASPECTS: tuple[ThreadAspect, ...] = (
    ThreadAspect(
        "alternate stack, mask",
        signals.dump_thread,
        lambda thread, batch: signals.restore_thread(thread.core, batch),
    ),
    ThreadAspect(
        "library registrations",
        lambda thread, mask, batch: threading.dump(thread, batch),
        lambda thread, batch: threading.restore(thread.core, batch),
    ),
    ThreadAspect(
        "credentials",
        lambda thread, mask, batch: creds.dump(thread, batch),
        lambda thread, batch: creds.restore(thread.core, thread.status, batch),
        When.CREDENTIALS,
    ),
    ThreadAspect(
        "no_new_privs", None, lambda thread, batch: creds.restore_no_new_privs(thread.core, batch), When.SEALED
    ),
    ThreadAspect("pending signals", None, signals.restore_pending, When.LAST),
)


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
