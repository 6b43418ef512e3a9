"""Who makes connections of unix sockets again, so that the other end is told the same of them.

The kernel notes the calling task's process and credentials, so that the call is made by the puppet of that process, as
that user and with those groups for the moment.  For a process that is dead a task is made that has its pid while it
makes the call.  For one outside of the tree, or an id that the tree's user namespace does not know, a thread of ours
makes it.

Nobody is ever seen as root who was not: where that cannot be had the restore fails.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torpor.base import log
from torpor.base.errors import KernelError, RestoreError, TorporError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.base.records import dataclass
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.idmap import NO_ID, IdMap
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.procfs.status import read_status
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_PATH, O_WRONLY
from torpor.kernel.uapi.prctl import PR_GET_DUMPABLE, PR_SET_DUMPABLE
from torpor.kernel.uapi.sched import CLONE_VM
from torpor.objects.files.socket.make import check_type, make_pair
from torpor.objects.files.socket.peer_cred import Who
from torpor.objects.session import RestoreContext
from torpor.tracee import puppet as puppets
from torpor.tracee.batch import Arg, Batch, RemoteCallError
from torpor.tracee.remote import Runner, kill_and_reap
from torpor.tracee.thread import WALL

_KEEP = 0xFFFFFFFF
_OVERFLOW = 65534
#: How many processes there are at once that are made for the moment.
_MOST = 32
#: How many pairs one batch makes; the maker holds both ends until we have them.
_PAIRS_AT_ONCE = 50

_Pair = tuple[Socket, Socket]


@dataclass(slots=True)
class _Ids:
    """Ids as the task that is to have them knows them."""

    uid: int
    gid: int
    fsuid: int
    #: The supplementary groups; None: those that the task has stay.
    groups: tuple[int, ...] | None


class Actors:
    """Those who act in one restore; ``close`` ends whom it has made for it."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        #: The tasks that were made for it, by the pid that each has in the tree.
        self._made: dict[TreePid, Runner] = {}
        #: By thread, the ids that it has itself and comes back to; they are asked for once.
        self._own: dict[Pid, _Ids] = {}
        #: Pairs that ``pair`` is going to be asked for, and those of them that are made already.
        self._expected: dict[tuple[Who, int, str], int] = {}
        self._ready: dict[tuple[Who, int, str], list[_Pair]] = {}
        self._processes = {process.ns_pid: process for process in context.processes}
        #: Pids that nobody else may have for a moment.
        self._reserved = {
            number
            for process in context.processes
            for number in (process.entry.pgid, process.entry.sid, *(thread.ns_tid for thread in process.threads))
        }

    def listen(self, who: Who | None, listener: Socket, backlog: int) -> None:
        """Have *listener* listen(2) as *who* did, whom its clients are told; as ourselves for None."""
        if who is None:
            listener.listen(backlog)
            return
        runner = self._runner_for(who)
        if runner is None:
            self._as_ourselves(who, lambda: listener.listen(backlog))
            return
        (number,) = self._context.lend(runner, [listener.fileno()])
        batch = Batch()
        with_ids = self._borrow(runner, who)
        with_ids.enter(batch)
        batch.call(nr.listen, number, backlog)
        with_ids.leave(batch)
        batch.call(nr.close, number)
        self._run(runner, batch, who)

    def expect_pairs(self, wanted: Iterable[tuple[Who | None, int, str]]) -> None:
        """Say for which ends, types and labels ``pair`` is going to be asked: these are made many at once."""
        for who, kind, label in wanted:
            if who is not None:
                self._expected[who, kind, label] = self._expected.get((who, kind, label), 0) + 1

    def pair(self, who: Who | None, kind: int, ns_id: int) -> _Pair:
        """socketpair(2); with the label that sockets get just now."""
        check_type(kind)
        if who is None:
            return make_pair(self._context, kind, ns_id)
        key = who, kind, self._context.files.label
        if ready := self._ready.get(key):
            return ready.pop()
        runner = self._runner_for(who)
        if runner is None:
            made: list[_Pair] = []
            self._as_ourselves(who, lambda: made.append(make_pair(self._context, kind, ns_id)))
            return made[0]
        count = max(1, min(self._expected.get(key, 0), _PAIRS_AT_ONCE))
        self._expected[key] = self._expected.get(key, 0) - count
        ready = self._ready[key] = self._make_pairs(runner, who, kind, count)
        return ready.pop()

    @contextmanager
    def _labelling(self, runner: Runner, batch: Batch) -> Iterator[None]:
        """Have the sockets that the calls added meanwhile make get the label of the file that is made.

        Of a socket it is its maker's SELinux context, or what its maker has written; ours is no puppet's.
        """
        label = self._context.files.label
        if not label:
            yield
            return
        with OwnedFd(os.open("/proc", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as proc:
            (at,) = self._context.lend(runner, [proc.fileno()])
        _write_label(batch, at, label.encode(errors="surrogateescape"))
        yield
        _write_label(batch, at, lsm.NO_LABEL)
        batch.call(nr.close, at)

    def _make_pairs(self, runner: Runner, who: Who, kind: int, count: int) -> list[_Pair]:
        batch = Batch()
        rooms = [batch.out(8) for _ in range(count)]
        with_ids = self._borrow(runner, who)
        with self._labelling(runner, batch):
            with_ids.enter(batch)
            for room in rooms:
                batch.call(nr.socketpair, socket.AF_UNIX, kind | socket.SOCK_CLOEXEC, 0, room)
            with_ids.leave(batch)
        self._run(runner, batch, who)
        theirs = [struct.unpack("ii", room.bytes()) for room in rooms]
        made = []
        with OwnedFd(open_pidfd(runner.thread.tgid)) as pidfd:
            for numbers in theirs:
                one, other = (Socket(socket.AF_UNIX, kind, 0, fileno=getfd(pidfd.fileno(), fd)) for fd in numbers)
                made.append((one, other))
        batch = Batch()
        for number in (number for numbers in theirs for number in numbers):
            batch.call(nr.close, number)
        runner.run(batch)
        return made

    def connect(self, who: Who | None, client: Socket, name: bytes, file: int) -> None:
        """connect(2) to an abstract *name*, or to the socket of *file* (O_PATH) where there is none.  OSError."""
        own_name = name or b"/proc/self/fd/%d" % file
        if who is None:
            client.connect(own_name)
            return
        runner = self._runner_for(who)
        failure = self._connect_remotely(runner, who, client, name, file) if runner is not None else 0
        if failure:
            if failure not in (errno.EPERM, errno.EACCES):
                raise OSError(failure, os.strerror(failure))
            # Its user namespace does not know the owner of the socket's file, so that it has no right to that.
            log.warn(f"a unix socket's peer that was {who} is now seen with another pid")
        if failure or runner is None:
            self._as_ourselves(who, lambda: client.connect(own_name))

    def _connect_remotely(self, runner: Runner, who: Who, client: Socket, name: bytes, file: int) -> int:
        address = struct.pack("H", socket.AF_UNIX) + name
        fds = [client.fileno()]
        with OwnedFd(os.open("/proc", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as proc:
            if not name:
                fds += [file, proc.fileno()]
            numbers = self._context.lend(runner, fds)
        batch = Batch()
        with_ids = self._borrow(runner, who)
        if not name:
            address += b"self/fd/%d\0" % numbers[1]
            cwd = batch.call(nr.openat, AT_FDCWD, batch.path("."), O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0)
            batch.call(nr.fchdir, numbers[2])
        with_ids.enter(batch)
        done = batch.call(nr.connect, numbers[0], batch.data(address), len(address), may_fail=True)
        with_ids.leave(batch)
        if not name:
            batch.call(nr.fchdir, cwd)
            batch.call(nr.close, cwd)
        for number in numbers:
            batch.call(nr.close, number)
        self._run(runner, batch, who)
        return done.errno

    def _borrow(self, runner: Runner, who: Who) -> _Borrowed:
        if runner.tid not in self._own:
            idmaps, status = self._context.idmaps, read_status(runner.thread.tgid, runner.tid)
            groups = tuple(map(idmaps.groups.inside, status.groups))
            self._own[runner.tid] = _Ids(
                idmaps.users.inside(status.uids[1]),
                idmaps.groups.inside(status.gids[1]),
                idmaps.users.inside(status.uids[3]),
                None if NO_ID in groups else groups,
            )
        return _Borrowed(self._own[runner.tid], who)

    def _run(self, runner: Runner, batch: Batch, who: Who) -> None:
        try:
            runner.run(batch)
        except RemoteCallError as error:
            raise RestoreError(
                f"a unix socket's other end was made by {who}, as which it cannot be made again: {error}",
                hint="restore as root",
            ) from error

    def pid_of(self, pid: TreePid) -> Pid:
        """A process (as we see it) that a message may say it comes from, as if it were *pid*; 0: one outside."""
        if not pid:
            return Pid(os.getpid())
        known = self._processes.get(pid)
        return known.pid if known is not None else self._stand_in(pid, f"pid {pid}").tid

    # -- who acts ---------------------------------------------------------------------------------------------

    def _runner_for(self, who: Who) -> Runner | None:
        """A task that is that process, or is taken for it; None: we do it ourselves."""
        if not who.pid or not self._knows(who):
            return None
        process = self._processes.get(who.pid)
        if process is not None and process.is_born and not process.is_zombie:
            return process.runner
        return self._stand_in(who.pid, str(who))

    def _knows(self, who: Who) -> bool:
        outside = self._context.idmaps.outside(who.uid, who.gid)
        return -1 not in outside and NO_ID not in (who.uid, who.gid)

    def _stand_in(self, pid: TreePid, who: str) -> Runner:
        if pid not in self._made:
            if len(self._made) == _MOST:
                self._end_made()
            self._made[pid] = self._make(pid, who)
        return self._made[pid]

    def _make(self, pid: TreePid, who: str) -> Runner:
        """A child of the root's that shares its memory, under that pid if nobody else has it."""
        root = self._context.processes[0].runner
        is_taken = len(read_status(root.tid).ns_pids) == 1 and os.path.exists(f"/proc/{pid}")
        if not is_taken and pid not in self._reserved:
            try:
                return puppets.clone(root, flags=CLONE_VM, exit_signal=0, set_tid=(pid,))
            except (RestoreError, KernelError) as error:
                log.debug(f"a task with pid {pid} cannot be made: {error}")
        made = puppets.clone(root, flags=CLONE_VM, exit_signal=0, set_tid=())
        number = read_status(made.tid).ns_pids[-1]
        log.warn(f"a unix socket's peer that was {who} and is dead is now seen as pid {number}, which is dead, too")
        return made

    def close(self) -> None:
        """Close what nobody wanted, and end those that were made for the moment."""
        for one, other in (pair for pairs in self._ready.values() for pair in pairs):
            one.close()
            other.close()
        self._ready.clear()
        self._expected.clear()
        self._end_made()

    def _end_made(self) -> None:
        made, self._made = list(self._made.values()), {}
        self._own.clear()
        for runner in made:
            batch = Batch()
            batch.call(nr.wait4, read_status(runner.tid).ns_pids[-1], 0, WALL, 0)
            kill_and_reap([runner.thread])
            self._context.processes[0].runner.run(batch)

    def _as_ourselves(self, who: Who, action: Callable[[], None]) -> None:
        """Do *action* in a thread of ours as that user."""
        import threading

        idmaps = self._context.idmaps
        user = _outside(idmaps.users, who.uid)
        group = _outside(idmaps.groups, who.gid)
        groups = [found for found in map(idmaps.groups.outside, who.groups) if found != NO_ID]
        dumpable = syscall("prctl(PR_GET_DUMPABLE)", nr.prctl, PR_GET_DUMPABLE)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                if (os.geteuid(), os.getegid(), os.getgroups()) != (user, group, groups):
                    _become(user, group, groups)
                action()
            except BaseException as error:  # handed to the caller
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if dumpable == 1:
            syscall("prctl(PR_SET_DUMPABLE)", nr.prctl, PR_SET_DUMPABLE, dumpable)
        if failures and isinstance(failures[0], PermissionError):
            if not user:
                log.warn(f"a unix socket's other end was made by {who}, and by us now, who are not root")
                action()
                return
            raise RestoreError(
                f"a unix socket's other end was made by {who}, as which it cannot be made again", hint="restore as root"
            ) from failures[0]
        if failures:
            raise failures[0]


def _become(user: int, group: int, groups: list[int]) -> None:
    """Let the calling thread be that user.  Raw calls: the C library's would change all threads."""
    fsuid = os.geteuid()
    if not fsuid:
        packed = bytearray(struct.pack(f"{len(groups)}I", *groups))
        syscall("setgroups", nr.setgroups, len(groups), address_of(packed))
    syscall("setresgid", nr.setresgid, _KEEP, group, _KEEP)
    syscall("setresuid", nr.setresuid, _KEEP, user, _KEEP)
    # Its rights on the socket's file are not at stake.
    syscall("setfsuid", nr.setfsuid, fsuid)


class _Borrowed:
    """The credentials of a puppet, as they are and as they are for the moment."""

    def __init__(self, before: _Ids, who: Who) -> None:
        # In a user namespace it can be forbidden to set groups, and those from outside could not be set again.
        changes_groups = before.groups is not None and before.groups != who.groups
        # Its rights on the socket's file are not at stake.
        self._meanwhile = _Ids(who.uid, who.gid, before.fsuid, who.groups if changes_groups else None)
        self._before = before if changes_groups else _Ids(before.uid, before.gid, before.fsuid, None)

    def enter(self, batch: Batch) -> None:
        """Take on the user and group; real and saved ones stay."""
        ids = self._meanwhile
        _set_groups(batch, ids)
        batch.call(nr.setresgid, _KEEP, ids.gid, _KEEP)
        batch.call(nr.setresuid, _KEEP, ids.uid, _KEEP)
        batch.call(nr.setfsuid, ids.fsuid)

    def leave(self, batch: Batch) -> None:
        """Be again who it was: the user first, with whom the privilege for the rest comes back."""
        ids = self._before
        batch.call(nr.setresuid, _KEEP, ids.uid, _KEEP, may_fail=True)
        batch.call(nr.setresgid, _KEEP, ids.gid, _KEEP, may_fail=True)
        batch.call(nr.setfsuid, ids.fsuid)
        _set_groups(batch, ids)


def _write_label(batch: Batch, proc: int, label: bytes) -> None:
    attribute, data = batch.call(nr.openat, proc, batch.path(lsm.SOCKCREATE), O_WRONLY, 0), batch.data(label)
    batch.call(nr.write, attribute, data, data.size)
    batch.call(nr.close, attribute)


def _set_groups(batch: Batch, ids: _Ids) -> None:
    if ids.groups is not None:
        room: Arg = batch.data(struct.pack(f"{len(ids.groups)}I", *ids.groups)) if ids.groups else 0
        batch.call(nr.setgroups, len(ids.groups), room, may_fail=True)


def _outside(ids: IdMap, ident: int) -> int:
    """Our id of one inside; of one that is not known there, some other that is not."""
    found = ids.outside(ident) if ident != NO_ID else NO_ID
    if found != NO_ID:
        return found
    candidates = (_OVERFLOW, *(each.outer + each.count for each in ids.extents))
    unknown = next((number for number in candidates if ids.inside(number) == NO_ID), None)
    if unknown is None:
        raise TorporError("the tree's user namespace knows all ids that there are")
    return unknown
