"""time namespace: what the monotonic and boot-time clocks show.

Kernel view
    ``/proc/PID/timens_offsets``, added to our own clocks.
Image
    ``timens_entry``: both clocks as they were in the namespace.
Restore
    The stub makes the namespace, is told the offsets that let the clocks go on from there, and clones the root into it;
    a thread of ours does where the root is to be a sibling.
"""

from __future__ import annotations

import time

from torpor.base.errors import RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore, load_one, store_one
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWTIME, unshare
from torpor.objects.ns.model import NsDump
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_SECOND = 1_000_000_000
#: Image field (and name in timens_offsets), clock.
_CLOCKS = (("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME))


def dump(session: NsDump) -> None:
    """Both clocks."""
    offsets, ours = _read_offsets(session.pid), _read_offsets("self")
    entry = m.timens_entry()
    for name, clock in _CLOCKS:
        found = entry.monotonic if name == "monotonic" else entry.boottime
        found.tv_sec, found.tv_nsec = divmod(time.clock_gettime_ns(clock) - ours[name] + offsets[name], _SECOND)
    store_one(session.store, "TIMENS", entry, session.ident)


def _read_offsets(pid: int | str) -> dict[str, int]:
    """By how many nanoseconds the clocks of *pid*'s time namespace differ from the machine's own."""
    with open(f"/proc/{pid}/timens_offsets", encoding="ascii") as stream:
        rows = [line.split() for line in stream]
    return {name: int(seconds) * _SECOND + int(nanoseconds) for name, seconds, nanoseconds in rows}


def prepare(store: ImageStore, ident: int, stub: Runner) -> None:
    """Have what *stub* clones from now on be born into a new time namespace."""
    entry, ours = load_one(store, kinds.TIMENS, ident), _read_offsets("self")
    batch = Batch()
    batch.call(nr.unshare, CLONE_NEWTIME)
    stub.run(batch)
    _set_clocks(stub.tid, entry, ours)


def prepare_thread(store: ImageStore, ident: int) -> None:
    """The same for what the calling thread of ours clones."""
    import threading

    entry, ours = load_one(store, kinds.TIMENS, ident), _read_offsets("self")
    unshare(CLONE_NEWTIME)
    _set_clocks(threading.get_native_id(), entry, ours)


def _set_clocks(tid: int, entry: m.timens_entry, ours: dict[str, int]) -> None:
    """Have the clocks of the namespace that *tid* has made for its children go on from where they were.

    Its offsets are from the machine's clocks, whatever namespace we are in ourselves: *ours* are those of that one.
    """
    lines = []
    for name, clock in _CLOCKS:
        wanted = entry.monotonic if name == "monotonic" else entry.boottime
        offset = wanted.tv_sec * _SECOND + wanted.tv_nsec - (time.clock_gettime_ns(clock) - ours[name])
        seconds, nanoseconds = divmod(offset, _SECOND)
        lines.append(f"{name} {seconds} {nanoseconds}\n")
    try:
        with open(f"/proc/{tid}/timens_offsets", "w", encoding="ascii") as stream:
            stream.write("".join(lines))
    except OSError as error:
        raise RestoreError(f"the clocks of the time namespace cannot be set: {error}") from error
