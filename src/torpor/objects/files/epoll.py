"""epoll(7): a set of watched files behind a descriptor.

Kernel view
    A ``tfd:`` line in fdinfo for each watched file: the number by which it was added, events, data, offset, inode and
    device of the file.  A number stays there when its descriptor is closed or becomes another file, as long as the
    description lives: kcmp(2) with KCMP_EPOLL_TFD tells which description is meant.
Image
    ``eventpoll_file_entry``.  Where the number is not (any more) that of the file: ``tfd`` is one that is, as CRIU has
    it, ``torpor_tfd`` the number itself, ``torpor_file_id`` the file.
    ``torpor_busy_poll``: what EPIOCGPARAMS (6.9) tells, how it polls network devices, the bytes as a number.
Restore
    epoll_ctl(2) in a process that has both descriptors (signalfd shows the signals of who added it); where none has, in
    a descriptor table of our own.  Adding a file that is ready makes an event.
Limits
    A disarmed one-shot can be disarmed again only while its file is ready for something; else it may report one
    EPOLLERR or EPOLLHUP.  Edges seen before are reported once more: to take them out would take what is new with them
    (a connection that has come since the socket listens), and nothing would ever tell of that.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, replace
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.arch.structs import EPOLL_EVENT
from torpor.kernel.kcmp import kcmp
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.kcmp import KCMP_EPOLL_TFD
from torpor.kernel.uapi.sched import CLONE_FILES
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile, Placed
from torpor.objects.model import RestoreProcess
from torpor.objects.session import DumpContext, DumpStage, RestoreContext
from torpor.tracee.batch import Batch

_LINK = "anon_inode:[eventpoll]"
_CTL_ADD = 1
_ANY = select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLRDHUP
# What the kernel adds to every armed watch; a one-shot without them is disarmed.
_ALWAYS = select.EPOLLERR | select.EPOLLHUP
_EPIOCSPARAMS, _EPIOCGPARAMS = 0x40088A01, 0x80088A02
_PARAMS_BYTES = 8
_BATCH = 256


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target == _LINK


# -- dump -----------------------------------------------------------------------------------------------------


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.epfd``; files that are not at their number any more are looked for when all are known."""
    epfd = entry.epfd
    epfd.id, epfd.flags = entry.id, file.flags
    fown.fill(epfd.fown, file)
    if busy_poll := _read_busy_poll(file.fd):
        epfd.torpor_busy_poll = busy_poll
    seen: dict[int, int] = {}
    lost: list[tuple[m.eventpoll_tfd_entry, int]] = []
    for line in file.fdinfo:
        if not line.startswith("tfd:"):
            continue
        watch = _parse(line, entry.id)
        # The same number can stand for several files: a later one added after the earlier was closed.
        order = seen.get(watch.tfd, 0)
        seen[watch.tfd] = order + 1
        epfd.tfd.append(watch)
        # A set in a queue has no process whose numbers it could mean.
        if file.in_flight or not _is_watched(file, watch.tfd, order, file.process.pid, watch.tfd):
            lost.append((epfd.tfd[-1], order))
    if lost:
        context.at(DumpStage.COMPLETE, lambda: _find_lost(file, lost, context))


def _read_busy_poll(fd: int) -> int:
    """What the set is told of polling devices; 0: nothing, or a kernel without."""
    found = bytearray(_PARAMS_BYTES)
    try:
        fcntl.ioctl(fd, _EPIOCGPARAMS, found)
    except OSError:
        return 0
    return int.from_bytes(found, "little")


def _parse(line: str, epoll_id: int) -> m.eventpoll_tfd_entry:
    words = line.replace(":", ": ").split()
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return m.eventpoll_tfd_entry(
        id=epoll_id,
        tfd=int(fields["tfd:"]),
        events=int(fields["events:"], 16),
        data=int(fields["data:"], 16),
        pos=int(fields.get("pos:", "0")),
        inode=int(fields.get("ino:", "0"), 16),
        dev=int(fields.get("sdev:", "0"), 16),
    )


def _is_watched(file: OpenFile, tfd: int, order: int, pid: Pid, number: int) -> bool:
    """Whether descriptor *number* of *pid* is the *order*-th file that *file* watches as *tfd*."""
    owner, own_number = file.place
    slot = bytearray(struct.pack("=III", own_number, tfd, order))
    try:
        return kcmp(pid, owner, KCMP_EPOLL_TFD, number, address_of(slot)) == 0
    except OSError:
        return False  # no descriptor of that number


def _find_lost(file: OpenFile, lost: list[tuple[m.eventpoll_tfd_entry, int]], context: DumpContext) -> None:
    for watch, order in lost:
        number = watch.tfd
        for pid, other, file_id in context.files.iter_alike(watch.inode):
            if _is_watched(file, number, order, pid, other):
                watch.torpor_tfd, watch.torpor_file_id = number, file_id
                if pid == file.process.pid:
                    watch.tfd = other
                break
        else:
            raise file.refuse(
                f"it watches a file by the number {number} that no process of the tree has open",
                hint="checkpoint the process that has it as well",
            )


# -- restore --------------------------------------------------------------------------------------------------


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """An empty set; what it watches is added by ``attach``."""
    fd = syscall("epoll_create1", nr.epoll_create1, os.O_CLOEXEC)
    status_flags.restore(fd, entry.epfd.flags)
    if entry.epfd.torpor_busy_poll:
        try:
            fcntl.ioctl(fd, _EPIOCSPARAMS, entry.epfd.torpor_busy_poll.to_bytes(_PARAMS_BYTES, "little"))
        except OSError as error:
            log.warn(f"epoll {entry.id} does not poll devices as it did: {error.strerror}")
    return fd


def attach(entry: m.file_entry, context: RestoreContext, placed: Placed) -> None:
    """Add what it watches, inner sets first: their readiness is an event of the outer ones."""
    context.part(_Attaching).attach(entry)


@dataclass(frozen=True, slots=True)
class _Watch:
    """One file to add: ``number`` is its key; ``is_there`` says whether that is the file's number in the process."""

    number: int
    events: int
    data: int
    file_id: int
    is_there: bool

    @property
    def is_disarmed(self) -> bool:
        return bool(self.events & select.EPOLLONESHOT) and not self.events & (_ANY | _ALWAYS)


class _Attaching:
    """Which sets have been filled, and what each process has at which number."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._done: set[int] = set()
        self._tables: dict[int, dict[int, int]] = {}
        for file_id in context.files.entries:
            for process, number in context.files.holders(file_id):
                self._tables.setdefault(process.ns_pid, {})[number] = file_id

    def attach(self, entry: m.file_entry) -> None:
        """Fill the set of *entry*, and before it those that it watches."""
        if entry.id in self._done:
            return
        self._done.add(entry.id)
        process, epoll_number, table = self._choose_holder(entry)
        watches = [self._read(tfd, table) for tfd in entry.epfd.tfd]
        if process is None:
            watches = [replace(watch, is_there=False) for watch in watches]
        for watch in watches:
            target = self._context.files.entry(watch.file_id)
            if target.HasField("epfd"):
                self.attach(target)
        own = self._context.files.open(entry.id)
        # Draining must not meet the events of others, so that these go in alone.
        disarmed = [self._make_fire(watch) for watch in watches if watch.is_disarmed]
        self._add(process, epoll_number, own, disarmed)
        _drain(own, len(disarmed))
        self._add(process, epoll_number, own, [watch for watch in watches if not watch.is_disarmed])

    def _choose_holder(self, entry: m.file_entry) -> tuple[RestoreProcess | None, int, dict[int, int]]:
        """A process that has the set and all that it watches by number, or most of it; no process for one in a queue.

        Then what each number means.
        """
        wanted = {tfd.tfd for tfd in entry.epfd.tfd if not tfd.torpor_file_id}
        holders = self._context.files.holders(entry.id)
        if holders:
            process, number = max(holders, key=lambda holder: len(wanted & self._tables[holder[0].ns_pid].keys()))
            return process, number, self._tables[process.ns_pid]
        tables = self._tables.values()
        return None, -1, max(tables, key=lambda table: len(wanted & table.keys()), default={})

    def _read(self, tfd: m.eventpoll_tfd_entry, table: dict[int, int]) -> _Watch:
        number = tfd.torpor_tfd if tfd.torpor_file_id else tfd.tfd
        file_id = tfd.torpor_file_id or table.get(number, 0)
        if not file_id:
            raise ImageError(f"epoll {tfd.id} watches descriptor {number}, which its process does not have")
        return _Watch(number, tfd.events, tfd.data, file_id, table.get(number) == file_id)

    def _make_fire(self, watch: _Watch) -> _Watch:
        """A disarmed watch armed for all, so that it fires at once and is disarmed by that; if its file is ready."""
        poller = select.poll()
        poller.register(self._context.files.open(watch.file_id), _ANY)
        return replace(watch, events=watch.events | _ANY) if poller.poll(0) else watch

    def _add(self, process: RestoreProcess | None, epoll_number: int, own: int, watches: list[_Watch]) -> None:
        there = [watch for watch in watches if watch.is_there]
        for start in range(0, len(there) if process is not None else 0, _BATCH):
            assert process is not None
            batch = Batch()
            for watch in there[start : start + _BATCH]:
                event = batch.data(EPOLL_EVENT.pack(watch.events, watch.data))
                batch.call(nr.epoll_ctl, epoll_number, _CTL_ADD, watch.number, event)
            process.runner.run(batch)
        elsewhere = [(watch, self._context.files.open(watch.file_id)) for watch in watches if not watch.is_there]
        if elsewhere:
            _in_own_table(lambda: _add_by_duplicates(own, elsewhere))


def _drain(own: int, n_events: int) -> None:
    """Take out all events that are ready now."""
    if n_events:
        with select.epoll.fromfd(os.dup(own)) as poller:
            poller.poll(0, n_events)


def _add_by_duplicates(own: int, watches: list[tuple[_Watch, int]]) -> None:
    """Add files by numbers that they have nowhere.  Overwrites any descriptor: only in a table that is thrown away."""
    above = 1 + max(watch.number for watch, _ in watches)
    poller = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, above)
    copies = [(watch, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)) for watch, fd in watches]
    for watch, fd in copies:
        os.dup2(fd, watch.number, inheritable=False)
        event = bytearray(EPOLL_EVENT.pack(watch.events, watch.data))
        syscall("epoll_ctl", nr.epoll_ctl, poller, _CTL_ADD, watch.number, address_of(event))


def _in_own_table(action: Callable[[], None]) -> None:
    """Do *action* in a thread with a descriptor table of its own, a copy of ours."""
    failed: list[OSError] = []

    def work() -> None:
        try:
            syscall("unshare", nr.unshare, CLONE_FILES)
            action()
        except OSError as error:
            failed.append(error)

    import threading

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise RestoreError(f"an epoll's files cannot be added: {failed[0]}") from failed[0]


KIND = FileKind("epoll", m.fd_types.EVENTPOLL, matches, dump, restore, attach)
