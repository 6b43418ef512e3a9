"""The owner of a file: whom to signal for it (F_SETOWN, F_SETSIG, O_ASYNC).

Kernel view
    F_GETOWN_EX, F_GETSIG and F_GETOWNER_UIDS on any descriptor of the description; the pid is as the caller sees it.
Image
    ``fown_entry`` in each kind's entry, with the pid as the tree sees it; O_ASYNC in its flags.
Restore
    The last step of all, for all kinds alike: by a process that holds it, so that pids mean what they mean there, and
    so that signals tell the descriptor's number in that process.
Limits
    An owner that is gone at the dump is forgotten; so is one that is not of the tree: its number may be anybody's by
    the restore, who would then get signals in the name of whoever had set it.
"""

from __future__ import annotations

import fcntl
import struct

from torpor.base import log
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.fcntl import (
    F_GETOWN_EX,
    F_GETOWNER_UIDS,
    F_GETSIG,
    F_OWNER_PGRP,
    F_SETFL,
    F_SETOWN_EX,
    F_SETSIG,
    O_PATH,
)
from torpor.objects.files.model import OpenFile
from torpor.objects.model import RestoreProcess
from torpor.objects.session import RestoreContext
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_O_ASYNC = 0o20000
_EMPTY = bytes(8)


def fill(fown: m.fown_entry, file: OpenFile) -> None:
    """Fill in the owner of *file*; one that we opened ourselves has none."""
    fown.uid = fown.euid = fown.signum = fown.pid_type = fown.pid = 0
    if (file.number < 0 and not file.in_flight) or file.flags & O_PATH:
        return
    fown.signum = fcntl.fcntl(file.fd, F_GETSIG)
    kind, pid = owner_of(file.fd)
    if pid:
        fown.pid_type, fown.pid = kind, _seen_inside(kind, pid)
        uids = struct.unpack("II", fcntl.fcntl(file.fd, F_GETOWNER_UIDS, _EMPTY))
        fown.uid, fown.euid = map(file.process.idmaps.users.inside, uids)


def owner_of(fd: int) -> tuple[int, Pid]:
    """F_OWNER_* and the pid, as we see it; 0 for none."""
    kind, pid = struct.unpack("ii", fcntl.fcntl(fd, F_GETOWN_EX, _EMPTY))
    return kind, Pid(pid)


def _seen_inside(kind: int, pid: Pid) -> int:
    """The owner's number in its own pid namespace."""
    try:
        status = read_status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return pid
    return (status.ns_pgids if kind == F_OWNER_PGRP else status.ns_pids)[-1]


def restore(context: RestoreContext) -> None:
    """Give every description its owner and switch its signals on."""
    runners: dict[int, tuple[Runner, Batch]] = {}
    owners = _owners_in_tree(context)
    for entry, placed in context.files.placements():
        flags, fown = _owner_of(entry, context)
        if fown is None or not (fown.pid or fown.signum or flags & _O_ASYNC):
            continue
        if fown.pid and (fown.pid_type == F_OWNER_PGRP, fown.pid) not in owners:
            log.warn(f"files.img: fown: pid {fown.pid} is not of the tree; file {entry.id} signals nobody")
            fown.pid = 0
        process, number = placed.holders[0]
        _, batch = runners.setdefault(process.pid, (process.runner, Batch()))
        _add(batch, process, number, flags, fown)
    for runner, batch in runners.values():
        runner.run(batch)


def _owners_in_tree(context: RestoreContext) -> set[tuple[bool, int]]:
    """Whom files may signal: tasks and groups, the latter with True."""
    tasks = {(False, thread.ns_tid) for process in context.processes for thread in process.threads}
    return tasks | {(True, process.entry.pgid) for process in context.processes}


def _owner_of(entry: m.file_entry, context: RestoreContext) -> tuple[int, m.fown_entry | None]:
    if entry.type == m.fd_types.FIFO and entry.fifo.HasField("regf_id"):
        entry = context.files.entry(entry.fifo.regf_id)
    for _, member in entry.ListFields():
        fown = getattr(member, "fown", None)
        if fown is not None:
            return getattr(member, "flags", 0), fown
    return 0, None


def _add(batch: Batch, process: RestoreProcess, number: int, flags: int, fown: m.fown_entry) -> None:
    if fown.signum:
        batch.call(nr.fcntl, number, F_SETSIG, fown.signum)
    if flags & _O_ASYNC:
        batch.call(nr.fcntl, number, F_SETFL, flags)
    if not fown.pid:
        return
    owner = batch.pack("ii", fown.pid_type, fown.pid)
    switch = bool(fown.uid or fown.euid)
    if switch:
        # The kernel notes the real and effective ids of whoever sets the owner.
        batch.call(nr.setresuid, fown.uid, fown.euid, 0)
    # It may fail: an owner outside of the tree can be gone by now.
    batch.call(nr.fcntl, number, F_SETOWN_EX, owner, may_fail=True)
    if switch:
        batch.call(nr.setresuid, 0, 0, 0)
