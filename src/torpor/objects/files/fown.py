"""The owner of a file: whom to signal for it (F_SETOWN, F_SETSIG, O_ASYNC).

Kernel view
    F_GETOWN_EX, F_GETSIG and F_GETOWNER_UIDS on any descriptor of the description; the pid is as the caller sees it.
Image
    ``fown_entry`` in each kind's entry, with the pid as the tree sees it; O_ASYNC in its flags.
Restore
    The last step of all, for all kinds alike: by a process that holds it, so that pids mean what they mean there, and
    so that signals tell the descriptor's number in that process.  A socket to which something has come by then, for
    which nobody was signalled, has its owner signalled once: one signal too many is harmless, one too few is not.
Limits
    An owner that is gone at the dump is forgotten; so is one that is not of the tree: its number may be anybody's by
    the restore, who would then get signals in the name of whoever had set it.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
from collections.abc import Iterator
from functools import cache

from torpor.base import log
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel import signal
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.fcntl import (
    F_GETOWN_EX,
    F_GETOWNER_UIDS,
    F_GETSIG,
    F_OWNER_PGRP,
    F_OWNER_TID,
    F_SETFL,
    F_SETOWN_EX,
    F_SETSIG,
    O_PATH,
)
from torpor.objects.files.model import OpenFile
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.session import RestoreContext
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_O_ASYNC = 0o20000
_EMPTY = bytes(8)
#: asm-generic/siginfo.h
_POLL_IN, _SI_KERNEL, _SIGINFO_BYTES = 1, 0x80, 128


def fill(fown: m.fown_entry, file: OpenFile) -> None:
    """Fill in the owner of *file*; one that we opened ourselves has none."""
    fown.MergeFrom(_nobody())
    if (file.number < 0 and not file.in_flight) or file.flags & O_PATH:
        return
    if signum := fcntl.fcntl(file.fd, F_GETSIG):
        fown.signum = signum
    kind, pid = owner_of(file.fd)
    if pid:
        fown.pid_type, fown.pid = kind, _seen_inside(kind, pid)
        uids = struct.unpack("II", fcntl.fcntl(file.fd, F_GETOWNER_UIDS, _EMPTY))
        fown.uid, fown.euid = map(file.process.idmaps.users.inside, uids)


@cache
def _nobody() -> m.fown_entry:
    return m.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)


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
    sockets: list[tuple[m.fown_entry, int, int]] = []
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
        if flags & _O_ASYNC and fown.pid and stat.S_ISSOCK(os.fstat(placed.fd).st_mode):
            sockets.append((fown, number, placed.fd))
    for runner, batch in runners.values():
        runner.run(batch)
    # Now that what comes finds an owner: of what has come before nobody was told, and one too many is harmless.
    for fown, number, fd in sockets:
        if _is_ready(fd):
            _signal(fown, number, context)


def _is_ready(fd: int) -> bool:
    """Whether it can be read."""
    return bool(select.select([fd], [], [], 0)[0])


def _signal(fown: m.fown_entry, number: int, context: RestoreContext) -> None:
    """Tell the owner that there is something to be read, in the kernel's words (fs/fcntl.c, send_sigio).

    Each does so to itself, for only to itself may a task say that it is from the kernel.
    """
    signum = fown.signum or signal.SIGIO
    info = struct.pack("iiiiqi", signum, 0, _POLL_IN if fown.signum else _SI_KERNEL, 0, select.POLLIN, number)
    for thread in _owning(fown, context):
        ns_pid, batch = thread.process.ns_pid, Batch()
        thread.runner.spare_signals({signum})
        if fown.pid_type == F_OWNER_TID:
            batch.call(
                nr.rt_tgsigqueueinfo, ns_pid, thread.ns_tid, signum, batch.data(info.ljust(_SIGINFO_BYTES, b"\0"))
            )
        else:
            batch.call(nr.rt_sigqueueinfo, ns_pid, signum, batch.data(info.ljust(_SIGINFO_BYTES, b"\0")))
        thread.runner.run(batch)


def _owning(fown: m.fown_entry, context: RestoreContext) -> Iterator[RestoreThread]:
    """The threads that are told: of a process, or of each in a group, the main one."""
    for process in context.processes:
        if process.is_zombie:
            continue
        if fown.pid_type == F_OWNER_PGRP:
            yield from process.threads[:1] if process.entry.pgid == fown.pid else ()
        else:
            yield from (thread for thread in process.threads if thread.ns_tid == fown.pid)


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
    # Who it is in its user namespace, as ids in the images are meant: root there, or whoever builds it, whose it stays.
    real, effective, saved, _ = map(process.idmaps.users.inside, read_status(process.pid).uids)
    switch = bool(fown.uid or fown.euid) and (fown.uid, fown.euid) != (real, effective)
    if switch:
        # The kernel notes the real and effective ids of whoever sets the owner.
        batch.call(nr.setresuid, fown.uid, fown.euid, saved)
    # It may fail: an owner outside of the tree can be gone by now.
    batch.call(nr.fcntl, number, F_SETOWN_EX, owner, may_fail=True)
    if switch:
        batch.call(nr.setresuid, real, effective, saved)
