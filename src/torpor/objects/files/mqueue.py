"""POSIX message queues: descriptors of queues, and the queues of an ipc namespace of the tree's own.

Kernel view
    A file of the mqueue file system, ``/NAME``; its text tells whom it notifies, mq_getsetattr(2) its limits.
Image
    Files of the type UND with a ``torpor_mqueue_file``, which CRIU refuses; a queue stands in the first of its files.
    A queue that nobody has open has an entry that no descriptor refers to.
Restore
    Queues of the tree's own ipc namespace are made with it, deleted ones when a file of theirs is opened.  Queues of a
    namespace that the tree shares with others stay there, and are opened by name.
Limits
    Times, and who pays for a queue (RLIMIT_MSGQUEUE), are not carried.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import mqueue
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import CLONE_NEWIPC, inside
from torpor.kernel.pidfd import open_pidfd
from torpor.objects.files import fown, mqueue_data, mqueue_notify
from torpor.objects.files.model import OpenFile, Placed
from torpor.objects.files.paths import DELETED
from torpor.objects.session import DumpContext, RestoreContext

_KEPT = os.O_ACCMODE | os.O_NONBLOCK
_MAX_MESSAGES = 65536
_MAX_SIZE = 16 << 20


# -- dump -----------------------------------------------------------------------------------------------------


class Queues:
    """The queues met in a dump: their numbers by inode."""

    def __init__(self, context: DumpContext) -> None:
        self._ids: dict[tuple[int, int], int] = {}

    def find(self, info: os.stat_result) -> tuple[int, bool]:
        """The queue's number, and whether it is new."""
        key = (info.st_dev, info.st_ino)
        is_new = key not in self._ids
        return self._ids.setdefault(key, len(self._ids) + 1), is_new


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.torpor_mqueue``, with the queue where it is met first."""
    mine = entry.torpor_mqueue
    mine.flags = file.flags
    fown.fill(mine.fown, file)
    mine.queue_id, is_new = context.part(Queues).find(file.stat)
    if not is_new:
        return
    queue = mine.queue
    deleted = file.stat.st_nlink == 0
    queue.name = os.fsencode(file.target.removesuffix(DELETED) if deleted else file.target).rpartition(b"/")[2]
    queue.deleted = deleted
    queue.outside = not deleted and not _is_own(file.process.pid)
    if queue.outside:
        return
    with OwnedFd(mqueue.reopen(file.fd)) as fd:
        notified = mqueue_notify.find(file, fd.fileno(), context)
        _dump_queue(fd.fileno(), queue, file.process.idmaps, poke=notified is not None and notified.is_signal)
        if notified is not None:
            mqueue_notify.dump(notified, queue, context)


def _is_own(pid: Pid) -> bool:
    """Whether *pid* is in another ipc namespace than we."""
    return os.stat(f"/proc/{pid}/ns/ipc").st_ino != os.stat("/proc/self/ns/ipc").st_ino


def _dump_queue(fd: int, queue: m.torpor_mqueue, idmaps: IdMaps, *, poke: bool = False) -> None:
    info, limits = os.fstat(fd), mqueue.attributes(fd)
    queue.mode = stat.S_IMODE(info.st_mode)
    queue.uid, queue.gid = idmaps.inside(info.st_uid, info.st_gid)
    queue.max_messages, queue.message_size = limits.max_messages, limits.message_size
    queue.message.extend(mqueue_data.peek(fd, poke=poke))


def dump_unopened(pidfd: int, idmaps: IdMaps, context: DumpContext) -> None:
    """The queues of the ipc namespace of the process behind *pidfd* that no descriptor has led to."""
    for name, number in inside(pidfd, CLONE_NEWIPC, mqueue.names_here):
        with OwnedFd(number) as fd:
            queue_id, is_new = context.part(Queues).find(os.fstat(fd.fileno()))
            if not is_new:
                continue
            mine = context.files.new_entry(m.fd_types.UND).torpor_mqueue
            mine.queue_id, mine.flags = queue_id, os.O_RDONLY
            mine.fown.uid = mine.fown.euid = mine.fown.signum = mine.fown.pid_type = mine.fown.pid = 0
            mine.queue.name = os.fsencode(name)
            _dump_queue(fd.fileno(), mine.queue, idmaps)


# -- restore --------------------------------------------------------------------------------------------------


class Restored:
    """The queues that the images have."""

    def __init__(self, context: RestoreContext) -> None:
        self.by_id: dict[int, m.torpor_mqueue] = {}
        for entry in context.files.entries.values():
            if entry.HasField("torpor_mqueue") and entry.torpor_mqueue.HasField("queue"):
                self.by_id[entry.torpor_mqueue.queue_id] = entry.torpor_mqueue.queue


def restore_named(pidfd: int, context: RestoreContext) -> None:
    """Make the queues of the new ipc namespace that have names; before any file of theirs is opened."""
    wanted = [queue for queue in context.part(Restored).by_id.values() if not queue.deleted and not queue.outside]

    def make_all() -> None:
        for queue in wanted:
            os.close(_make(queue, os.fsdecode(queue.name), context))

    if wanted:
        inside(pidfd, CLONE_NEWIPC, make_all)


def _make(queue: m.torpor_mqueue, name: str, context: RestoreContext) -> int:
    """A queue with its messages; a descriptor of ours."""
    if not 0 < queue.max_messages <= _MAX_MESSAGES or not 0 < queue.message_size <= _MAX_SIZE:
        raise ImageError(f"message queue /{name}: its limits are impossible")
    mqueue.raise_limit()
    try:
        fd = OwnedFd(mqueue.create(name, queue.max_messages, queue.message_size))
        os.fchown(fd.fileno(), *context.idmaps.outside(queue.uid, queue.gid))
        os.fchmod(fd.fileno(), queue.mode)
        mqueue_data.fill(fd.fileno(), queue)
    except OSError as error:
        raise RestoreError(
            f"message queue /{name} cannot be made again: {error}",
            hint="it counts against the limits in /proc/sys/fs/mqueue and RLIMIT_MSGQUEUE",
        ) from error
    return fd.release()


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Open the queue, which a deleted one is made for."""
    if not entry.HasField("torpor_mqueue"):
        raise ImageError(f"files.img: file {entry.id} is of no type")
    mine = entry.torpor_mqueue
    queue = context.part(Restored).by_id.get(mine.queue_id)
    if queue is None:
        raise ImageError(f"files.img: there is no message queue {mine.queue_id}")
    name, flags = os.fsdecode(queue.name), mine.flags & _KEPT
    if queue.deleted:
        kept = context.files.shared(
            ("mqueue", mine.queue_id), lambda: _in_namespace(context, lambda: _make_deleted(queue, context))
        )
        return os.open(f"/proc/self/fd/{kept}", flags | os.O_CLOEXEC)
    try:
        return _in_namespace(context, lambda: mqueue.open_queue(name, flags))
    except FileNotFoundError:
        raise RestoreError(
            f"message queue /{name}: {os.strerror(2)}",
            hint="it was of an ipc namespace that others have as well, and must be there again",
        ) from None


def _in_namespace(context: RestoreContext, work: Callable[[], int]) -> int:
    """Do *work* in the tree's ipc namespace."""
    root = context.processes[0]
    if not _is_own(root.pid):
        return work()
    with OwnedFd(open_pidfd(root.pid)) as pidfd:
        return inside(pidfd.fileno(), CLONE_NEWIPC, work)


def _make_deleted(queue: m.torpor_mqueue, context: RestoreContext) -> int:
    name = os.fsdecode(queue.name)
    for candidate in (name, *(f"{name[:200]}.torpor-{number}" for number in range(1, 100))):
        try:
            fd = _make(queue, candidate, context)
        except RestoreError as error:
            if isinstance(error.__cause__, FileExistsError):
                continue
            raise
        mqueue.unlink(candidate)
        return fd
    raise RestoreError(f"message queue /{name}: no name is free for it")


def attach(entry: m.file_entry, context: RestoreContext, placed: Placed) -> None:
    """Have the process that was to be notified of the next message be it again."""
    queue = context.part(Restored).by_id[entry.torpor_mqueue.queue_id]
    if queue.HasField("notify") and not queue.outside:
        mqueue_notify.restore(entry.torpor_mqueue.queue_id, queue, placed, context)
