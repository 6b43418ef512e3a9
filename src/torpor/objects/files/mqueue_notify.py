"""Who is told when a message comes into an empty POSIX message queue: mq_notify(2).

Kernel view
    The text of the queue's file: ``NOTIFY`` (what of sigevent(7)), ``SIGNO``, ``NOTIFY_PID``.  The value that goes with
    the signal it does not tell: the notification is set off while its process is stopped, which then takes the signal
    away again and asks to be notified anew.
Image
    ``torpor_mq_notify``.
Restore
    mq_notify(2) by the process, once it has the queue open.
Limits
    SIGEV_THREAD is refused: it is a netlink socket and a thread of the C library's.  A dumper that dies between the
    signal and its removal leaves the process notified of a message that it may have read already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_fds
from torpor.kernel.uapi.siginfo import SIGEV_NONE, SIGEV_SIGNAL
from torpor.objects.files.model import OpenFile, Placed
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext, RestoreContext
from torpor.objects.undo import LIVES, End
from torpor.tracee.batch import Batch, Data
from torpor.tracee.borrow import inject

_SIGEVENT = "<QiiQQQQQQ"
_SIGINFO_SIZE, _VALUE_OFFSET, _VALUE_SIZE = 128, 24, 8


@dataclass(frozen=True, slots=True)
class Notified:
    """The process, its descriptor of the queue, and how it is told."""

    process: DumpProcess
    number: int
    kind: int
    signo: int

    @property
    def is_signal(self) -> bool:
        """Whether by a signal; otherwise by nothing but the end of its being registered."""
        return self.kind == SIGEV_SIGNAL


def find(file: OpenFile, fd: int, context: DumpContext) -> Notified | None:
    """Who is to be notified by the queue behind *fd*, if anybody is.  RefusedError where that cannot be carried."""
    words = os.pread(fd, 200, 0).replace(b":", b" ").split()
    fields = {words[at]: int(words[at + 1]) for at in range(0, len(words) - 1, 2)}
    pid, kind, signo = (fields.get(key, 0) for key in (b"NOTIFY_PID", b"NOTIFY", b"SIGNO"))
    if not pid:
        return None
    process = next((each for each in context.processes if each.pid == pid and not each.is_zombie), None)
    if process is None:
        raise file.refuse(f"{file.target}: pid {pid}, which is not in the tree, waits to be notified by this queue")
    if kind not in (SIGEV_SIGNAL, SIGEV_NONE):
        raise file.refuse(
            f"{file.target}: a thread of {process.describe()} is to be notified by this queue (SIGEV_THREAD)",
            hint="have it notified by a signal, or use mq_receive or poll",
        )
    pending = process.status.shared_pending
    if kind == SIGEV_SIGNAL and pending & 1 << signo - 1:
        raise file.refuse(f"{file.target}: its signal {signo} is pending already", hint="try again")
    number = next((n for n in read_fds(process.pid) if _is_queue(process.pid, n, file.stat)), -1)
    if number < 0:
        raise file.refuse(f"{file.target}: {process.describe()} waits to be notified by it and has closed it")
    return Notified(process, number, kind, signo)


def _is_queue(pid: Pid, number: int, wanted: os.stat_result) -> bool:
    info = os.stat(f"/proc/{pid}/fd/{number}")
    return (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino)


def dump(notified: Notified, queue: m.torpor_mqueue, context: DumpContext) -> None:
    """Fill in ``queue.notify``; what the look at the messages has set off is taken back by the process itself."""
    process = notified.process
    queue.notify.pid, queue.notify.kind = process.ns_pid, notified.kind
    if notified.is_signal:
        queue.notify.signo = notified.signo
    elif not queue.message:
        return
    todo = [notified]

    def ask(batch: Batch) -> None:
        if todo:
            if notified.is_signal:
                _take_back(notified, queue.notify, batch)
            else:
                _register(notified.number, queue.notify, batch)
            batch.then(todo.clear)

    process.questions.append(ask)
    context.undo.add(lambda: _ask_now(process, ask) if todo else None, (*LIVES, End.STOPPED))


def _ask_now(process: DumpProcess, ask: Callable[[Batch], None]) -> None:
    """For a dump that fails before it comes to the questions."""
    leader = process.tracee.leader
    with inject(leader, process.maps, process.leftovers, pending=process.threads[0].status.pending) as injection:
        with injection.borrow(leader) as runner:
            batch = Batch()
            ask(batch)
            runner.run(batch)


def _take_back(notified: Notified, notify: m.torpor_mq_notify, batch: Batch) -> None:
    process = notified.process
    info = batch.out(_SIGINFO_SIZE)
    no_time = batch.out(16)
    signals = batch.data(struct.pack("<Q", 1 << notified.signo - 1))
    event = batch.data(struct.pack(_SIGEVENT, 0, notified.signo, notified.kind, 0, 0, 0, 0, 0, 0))
    value = Data(batch, info.offset + _VALUE_OFFSET, _VALUE_SIZE)
    taken = batch.call(nr.rt_sigtimedwait, signals, info, no_time, 8, may_fail=True)
    # The value goes from the signal into the event, all within the process.
    into = batch.pack("<QQ", event, _VALUE_SIZE)
    out_of = batch.pack("<QQ", value, _VALUE_SIZE)
    batch.call(nr.process_vm_readv, process.ns_pid, into, 1, out_of, 1, 0)
    batch.call(nr.mq_notify, notified.number, event, may_fail=True)

    def collect() -> None:
        if taken.errno:
            raise RefusedError(f"{process.describe()} did not get signal {notified.signo} of a message queue")
        notify.value = int.from_bytes(value.bytes(), "little")

    batch.then(collect)


def _register(number: int, notify: m.torpor_mq_notify, batch: Batch) -> None:
    event = batch.data(struct.pack(_SIGEVENT, notify.value, notify.signo, notify.kind, 0, 0, 0, 0, 0, 0))
    batch.call(nr.mq_notify, number, event)


class Registered:
    """The queues whose notification has been registered again."""

    def __init__(self, context: RestoreContext) -> None:
        self.ids: set[int] = set()


def restore(queue_id: int, queue: m.torpor_mqueue, placed: Placed, context: RestoreContext) -> None:
    """Have the process ask to be notified, if it is one of those that have the description."""
    done = context.part(Registered).ids
    for process, number in placed.holders:
        if process.ns_pid == queue.notify.pid and queue_id not in done:
            done.add(queue_id)
            batch = Batch()
            _register(number, queue.notify, batch)
            process.runner.run(batch)
