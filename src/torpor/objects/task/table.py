"""The aspects of a task, in the order in which they are restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torpor.images import messages as m
from torpor.kernel.procfs.status import Status
from torpor.objects.model import DumpProcess, DumpThread, RestoreProcess
from torpor.objects.task import creds, identity, signals, threading
from torpor.tracee.batch import Batch


@dataclass(frozen=True, slots=True)
class ThreadAspect:
    """``dump(thread, mask when stopped, batch)``; ``restore(core, the puppet's status, batch)``."""

    name: str
    dump: Callable[[DumpThread, int, Batch], None]
    restore: Callable[[m.core_entry, Status, Batch], None]


@dataclass(frozen=True, slots=True)
class ProcessAspect:
    """``dump(process, batch)`` and ``restore(process, batch)``, in the main thread."""

    name: str
    dump: Callable[[DumpProcess, Batch], None]
    restore: Callable[[RestoreProcess, Batch], None]


PROCESS_ASPECTS: tuple[ProcessAspect, ...] = (
    ProcessAspect("personality, OOM score", identity.dump, identity.restore),
    ProcessAspect("signal actions", signals.dump_process, signals.restore_process),
)

THREAD_ASPECTS: tuple[ThreadAspect, ...] = (
    ThreadAspect(
        "alternate stack, mask",
        signals.dump_thread,
        lambda core, status, batch: signals.restore_thread(core, batch),
    ),
    ThreadAspect(
        "library registrations",
        lambda thread, mask, batch: threading.dump(thread, batch),
        lambda core, status, batch: threading.restore(core, batch),
    ),
    # Last: what follows may lack the privileges that everything before needs.
    ThreadAspect("credentials", lambda thread, mask, batch: creds.dump(thread, batch), creds.restore),
)
