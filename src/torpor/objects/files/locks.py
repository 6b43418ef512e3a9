"""File locks: flock(2), POSIX and open-file-description locks, leases.

Kernel view
    ``lock:`` lines in ``/proc/PID/fdinfo/FD``: those of the description, and the POSIX locks of the process.
Image
    ``file_lock_entry`` in filelocks.img: kind, type, process and descriptor, range.
Restore
    By the process that had the lock, through that descriptor, once all files are open; leases after the locks.  A lease
    that was being broken is broken again by an open, without a signal: the process has had it.
Limits
    Only with ``--file-locks``.  The time left to give up a lease starts anew.  A lock that somebody else has taken in
    the meantime makes the restore fail.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.ids import TreePid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import load_all
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IDENTITY, NO_ID
from torpor.kernel.procfs.small import read_small
from torpor.kernel.uapi.fcntl import AT_FDCWD, F_OFD_SETLK, F_SETLEASE, F_SETLK, F_SETOWN_EX, LOCK_NB, O_NONBLOCK
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee.batch import Batch, Result

POSIX, FLOCK, OFD, LEASE = 1, 2, 4, 8
RDLCK, WRLCK, UNLCK = 0, 1, 2
BREAKING = 4

_KINDS = {"POSIX": POSIX, "FLOCK": FLOCK, "OFDLCK": OFD, "LEASE": LEASE}
_TYPES = {"READ": RDLCK, "WRITE": WRLCK, "UNLCK": UNLCK}
_FLOCK_LAYOUT = "hhiqqii"


@dataclass(frozen=True, slots=True)
class Lock:
    """A ``lock:`` line.  ``length`` is 0 up to the end of the file; ``place`` is device and inode."""

    kind: int
    type: int
    place: str
    start: int
    length: int


def parse_lock(line: str) -> Lock:
    """``lock: 1: POSIX ADVISORY WRITE 123 fe:00:456 5 14``."""
    fields = line.split()[2:]
    kind, state, type_name, place, start, end = (fields[i] for i in (0, 1, 2, 4, 5, 6))
    type_ = _TYPES[type_name] | (BREAKING if state == "BREAKING" else 0)
    return Lock(_KINDS[kind], type_, place, int(start), 0 if end == "EOF" else int(end) + 1 - int(start))


def dump(context: DumpContext) -> None:
    """Write filelocks.img from the lines that the descriptors had."""
    entries: list[m.file_lock_entry] = []
    seen: set[object] = set()
    for process, number, file_id, line in context.files.lock_lines:
        check(process, number, line, context)
        try:
            lock = parse_lock(line)
        except (KeyError, IndexError, ValueError):
            raise RefusedError(f"fd {number} of {process.describe()}: a lock of an unknown kind: {line}") from None
        owner = process.ids.files_id if lock.kind == POSIX else file_id
        if (owner, lock) in seen:
            continue
        seen.add((owner, lock))
        entries.append(
            m.file_lock_entry(
                flag=lock.kind, type=lock.type, pid=process.ns_pid, fd=number, start=lock.start, len=lock.length
            )
        )
    if entries:
        image = context.image("FILE_LOCKS")
        for entry in entries:
            image.add(entry)


def check(process: DumpProcess, number: int, line: str, context: DumpContext) -> None:
    """Refuse the lock of a ``lock:`` line that descriptor *number* has, where the policy has no locks."""
    if not context.policies.files.file_locks:
        raise RefusedError(
            f"fd {number} of {process.describe()}: a file lock is held ({line.partition(':')[2].strip()})",
            hint="try --file-locks",
        )


def locked_inodes() -> frozenset[int]:
    """The inode numbers of all files that anybody holds a lock on, by ``/proc/locks``."""
    words = read_small("/proc/locks").split()
    return frozenset(int(word.rpartition(":")[2]) for word in words if word.count(":") == 2)


def restore(context: RestoreContext) -> None:
    """Take all locks again."""
    try:
        found = load_all(context.store, "FILE_LOCKS")
    except ImageMissing:
        return
    entries = [entry for entry in found if isinstance(entry, m.file_lock_entry)]
    processes = {process.ns_pid: process for process in context.processes if not process.is_zombie}
    flags = _descriptor_flags(context)
    owners = _Owners(context)
    for wanted in (POSIX | FLOCK | OFD, LEASE):
        for process, own in _by_process(entries, wanted, processes):
            batch = Batch()
            results: list[tuple[m.file_lock_entry, Result]] = []
            for entry in own:
                with owners.being(entry, batch):
                    results += _add(batch, entry, flags.get((process.ns_pid, entry.fd), 0))
            process.runner.run(batch)
            for entry, result in results:
                _check(entry, result.errno)


def _by_process(
    entries: Iterable[m.file_lock_entry], wanted: int, processes: dict[TreePid, RestoreProcess]
) -> list[tuple[RestoreProcess, list[m.file_lock_entry]]]:
    found: dict[TreePid, list[m.file_lock_entry]] = {}
    for entry in entries:
        if entry.flag & wanted:
            found.setdefault(TreePid(entry.pid), []).append(entry)
    for pid in found:
        if pid not in processes:
            raise ImageError(f"filelocks.img: a lock of pid {pid}, which is not in the tree")
    return [(processes[pid], own) for pid, own in found.items()]


def _descriptor_flags(context: RestoreContext) -> dict[tuple[TreePid, int], int]:
    return {
        (process.ns_pid, number): entry.reg.flags
        for entry, placed in context.files.placements()
        for process, number in placed.holders
    }


class _Owners:
    """A lease is for the file's owner only (or CAP_LEASE, which counts for nothing in a user namespace)."""

    def __init__(self, context: RestoreContext) -> None:
        self._users = context.idmaps.users
        self._fds = {
            (process.ns_pid, number): placed.fd
            for _, placed in context.files.placements()
            for process, number in placed.holders
        } if context.idmaps is not IDENTITY else {}  # fmt: skip

    @contextmanager
    def being(self, entry: m.file_lock_entry, batch: Batch) -> Iterator[None]:
        """What is added to *batch* meanwhile is done in the name of the file's owner."""
        fd = self._fds.get((TreePid(entry.pid), entry.fd)) if entry.flag & LEASE else None
        owner = NO_ID if fd is None else self._users.inside(os.fstat(fd).st_uid)
        if owner != NO_ID:
            batch.call(nr.setfsuid, owner)
        yield
        if owner != NO_ID:
            batch.call(nr.setfsuid, self._users.head)


def _check(entry: m.file_lock_entry, error: int) -> None:
    if not error:
        return
    hint = "somebody else has it now" if error in (errno.EAGAIN, errno.EACCES) else None
    raise RestoreError(f"pid {entry.pid}: the lock on fd {entry.fd} cannot be taken: {os.strerror(error)}", hint=hint)


def _add(batch: Batch, entry: m.file_lock_entry, flags: int) -> list[tuple[m.file_lock_entry, Result]]:
    """The calls for one lock, and the results that must be good."""
    if entry.flag & FLOCK:
        operation = {RDLCK: 1, WRLCK: 2}.get(entry.type)
        if operation is None:
            raise ImageError(f"filelocks.img: a flock of type {entry.type}")
        return [(entry, batch.call(nr.flock, entry.fd, operation | LOCK_NB, may_fail=True))]
    if entry.flag & (POSIX | OFD):
        lock = batch.pack(_FLOCK_LAYOUT, entry.type, 0, 0, entry.start, entry.len, 0, 0)
        command = F_OFD_SETLK if entry.flag & OFD else F_SETLK
        return [(entry, batch.call(nr.fcntl, entry.fd, command, lock, may_fail=True))]
    if not entry.type & BREAKING:
        return [(entry, batch.call(nr.fcntl, entry.fd, F_SETLEASE, entry.type, may_fail=True))]
    return [(entry, _add_breaking(batch, entry, flags))]


def _add_breaking(batch: Batch, entry: m.file_lock_entry, flags: int) -> Result:
    before = RDLCK if flags & os.O_ACCMODE == os.O_RDONLY else WRLCK
    result = batch.call(nr.fcntl, entry.fd, F_SETLEASE, before, may_fail=True)
    # F_SETLEASE makes the caller the owner; without one the break sends no signal.
    batch.call(nr.fcntl, entry.fd, F_SETOWN_EX, batch.pack("ii", 1, 0))
    access = os.O_WRONLY if entry.type & ~BREAKING == UNLCK else os.O_RDONLY
    batch.call(nr.openat, AT_FDCWD, batch.path(f"/proc/self/fd/{entry.fd}"), access | O_NONBLOCK, 0, may_fail=True)
    return result
