"""Puppets: empty processes and threads that build themselves by our batches.

A puppet dies with us (PTRACE_O_EXITKILL).  Each is cloned by its parent puppet with the pid that the image wants.
"""

from __future__ import annotations

import _socket  # without the enumerations of `socket`, which take as long as a small dump
import errno
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from torpor.base import log
from torpor.base.errors import NotPermittedError, RestoreError, TargetGoneError, TorporError
from torpor.base.ids import Pid, TreePid
from torpor.kernel import ptrace
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import Status, read_status
from torpor.kernel.procfs.task import read_threads
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.ptrace import PTRACE_GETEVENTMSG
from torpor.kernel.uapi.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    CLONE_PTRACE,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
)
from torpor.kernel.uapi.socket import MSG_CMSG_CLOEXEC
from torpor.tracee.batch import Batch, Data, RemoteCallError
from torpor.tracee.remote import Runner, kill_and_reap
from torpor.tracee.thread import WALL, Thread

THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM

OPTIONS = (
    ptrace.PTRACE_O_TRACESYSGOOD
    | ptrace.PTRACE_O_TRACEFORK
    | ptrace.PTRACE_O_TRACEVFORK
    | ptrace.PTRACE_O_TRACECLONE
    | ptrace.PTRACE_O_EXITKILL
)
_QUIET_OPTIONS = ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL

_CLONES_PER_BATCH = 500
_CLONE_ARGS = "QQQQQQQQQQQ"
_ATTEMPTS = 100
_PAUSE_S = 0.02
#: How long a dead process may still have a pid that is wanted: its parent is slow to wait for it.
_DEAD_FOR_S = 2.0


def clone(parent: Runner, *, flags: int, exit_signal: int, set_tid: Sequence[TreePid]) -> Runner:
    """Let *parent* clone3 a task with the ids *set_tid* (innermost pid namespace first; empty: any); stopped.

    RestoreError where the pid is taken.  The new task's runner uses the same scratch addresses.
    """
    try:
        return _clone(parent, flags, exit_signal, set_tid)
    except RemoteCallError as error:
        if error.errno != errno.EPERM or len(set_tid) != 1 or len(read_status(parent.tid).ns_pids) > 1:
            raise
    # In a user namespace, but not in a pid namespace that belongs to it: it may not choose, but we may.
    for _ in range(_ATTEMPTS):
        if os.path.exists(f"/proc/{set_tid[0]}"):
            # Perhaps by something short-lived that was born in between.
            time.sleep(_PAUSE_S)
            continue
        with next_pid(Pid(set_tid[0])):
            child = _clone(parent, flags, exit_signal, ())
        if child.tid == Pid(set_tid[0]):
            return child
        # Somebody else has forked in between.
        discard(parent, child, flags)
    raise taken(set_tid, parent)


@contextmanager
def next_pid(pid: Pid) -> Iterator[None]:
    """The next task in our own pid namespace gets *pid*, unless others are faster.

    Afterwards pids go on from where they were, so that others do not get those that are wanted next.
    """
    fd = os.open("/proc/sys/kernel/ns_last_pid", os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.pread(fd, 32, 0)
        try:
            os.pwrite(fd, str(pid - 1).encode(), 0)
        except PermissionError:
            raise NotPermittedError(
                "a restore that gives processes their pids needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
                hint="run it as root, or give it one of them",
            ) from None
        yield
        os.pwrite(fd, before, 0)
    finally:
        os.close(fd)


def discard(parent: Runner, child: Runner, flags: int) -> None:
    """End a task that got another id than it was to have."""
    if flags & CLONE_THREAD:
        batch = Batch()
        batch.call(nr.exit, 0)
        with suppress(TargetGoneError):
            child.run(batch)
        return
    kill_and_reap([child.thread])
    if not flags & CLONE_PARENT:
        batch = Batch()
        batch.call(nr.wait4, child.tid, 0, WALL, 0)
        parent.run(batch)


def clone_thread_next(parent: Runner, choose: Callable[[], None]) -> Runner:
    """Let *parent* make a thread that gets whatever id is next, for which *choose* is called just before; stopped."""
    parent.on_start = choose
    try:
        return _clone(parent, THREAD_FLAGS, 0, ())
    finally:
        parent.on_start = None


def _clone(parent: Runner, flags: int, exit_signal: int, set_tid: Sequence[TreePid]) -> Runner:
    batch = Batch()
    tids = batch.data(struct.pack(f"{len(set_tid)}i", *set_tid)) if set_tid else 0
    args = batch.pack(_CLONE_ARGS, flags, 0, 0, 0, exit_signal, 0, 0, 0, tids, len(set_tid), 0)
    batch.call(nr.clone3, args, 88)
    tid = _run_clone(parent, batch, set_tid)
    is_thread = bool(flags & CLONE_THREAD)
    thread = Thread(parent.thread.tgid if is_thread else tid, tid)
    thread.wait_interrupted()
    child = Runner(thread, parent.scratch, stop_signal=parent.stop_signal)
    child.by_calls = parent.by_calls
    regs = parent.thread.get_regs()
    child.start_from(regs)
    return child


def clone_threads(parent: Runner, set_tids: Sequence[TreePid]) -> list[Runner]:
    """Let *parent* make threads with the ids *set_tids* (innermost namespace); all stopped, in that order.

    By CLONE_PTRACE a new thread is ours from its birth without a stop of its parent, so one batch makes hundreds.
    RestoreError where an id is taken; the process is dead then, and has been waited for.
    """
    tgid = parent.thread.tgid
    if not _may_choose(parent):
        return _clone_threads_singly(parent, set_tids)
    ptrace.set_options(parent.thread.tid, _QUIET_OPTIONS)
    try:
        for start in range(0, len(set_tids), _CLONES_PER_BATCH):
            batch = Batch()
            for tid in set_tids[start : start + _CLONES_PER_BATCH]:
                tids = batch.data(struct.pack("i", tid))
                flags = THREAD_FLAGS | CLONE_PTRACE
                args = batch.pack(_CLONE_ARGS, flags, 0, 0, 0, 0, 0, 0, 0, tids, 1, 0)
                batch.call(nr.clone3, args, 88)
            parent.run(batch)
    except RemoteCallError as error:
        threads = [Thread(tgid, tid) for tid in read_threads(tgid)]
        made = {read_status(tgid, thread.tid).ns_pids[-1] for thread in threads}
        missing = next((tid for tid in set_tids if tid not in made), TreePid(0))
        clash = taken([missing], parent) if error.errno == errno.EEXIST else None
        kill_and_reap(threads)
        if clash is not None:
            raise clash from error
        raise
    regs = parent.thread.get_regs()
    outer = _outer_ids(tgid, set_tids)
    runners = []
    for set_tid in set_tids:
        thread = Thread(tgid, outer[set_tid])
        thread.wait_interrupted()
        runner = Runner(thread, parent.scratch, stop_signal=parent.stop_signal)
        runner.start_from(regs)
        runners.append(runner)
    ptrace.set_options(parent.thread.tid, OPTIONS)
    return runners


def _clone_threads_singly(parent: Runner, set_tids: Sequence[TreePid]) -> list[Runner]:
    made: list[Runner] = []
    try:
        for tid in set_tids:
            made.append(clone(parent, flags=THREAD_FLAGS, exit_signal=0, set_tid=(tid,)))
    except TorporError:
        kill_and_reap([parent.thread, *(runner.thread for runner in made)])
        raise
    return made


def _may_choose(parent: Runner) -> bool:
    """Whether it is in our user namespace, or in a pid namespace that can be its own one's."""
    if len(read_status(parent.tid).ns_pids) > 1:
        return True
    return os.stat(f"/proc/{parent.tid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino


def _outer_ids(tgid: Pid, set_tids: Sequence[TreePid]) -> dict[TreePid, Pid]:
    """Ids in the process's own pid namespace -> the same as we see them."""
    if len(read_status(tgid).ns_pids) == 1:
        return {tid: Pid(tid) for tid in set_tids}
    return {TreePid(read_status(tgid, tid).ns_pids[-1]): tid for tid in read_threads(tgid)}


class TakenError(RestoreError):
    """Somebody else has the id that was wanted."""


def taken(set_tid: Sequence[TreePid], parent: Runner) -> TakenError:
    """The error that names him."""
    return TakenError(
        f"pid {set_tid[0]} is taken{_holder_of(set_tid[0], parent)}",
        hint="end that process, or restore into a new pid namespace",
    )


def _run_clone(parent: Runner, batch: Batch, set_tid: Sequence[TreePid]) -> Pid:
    born: list[Pid] = []
    deadline = time.monotonic() + _DEAD_FOR_S
    parent.on_event = lambda: born.append(event_message(parent.tid))
    is_said = False
    try:
        while True:
            try:
                parent.run(batch)
                break
            except RemoteCallError as error:
                if error.errno != errno.EEXIST or not set_tid:
                    raise
                if time.monotonic() > deadline or not _is_leaving(set_tid[0], parent):
                    raise taken(set_tid, parent) from error
            if not is_said:
                log.debug(f"pid {set_tid[0]} is not free yet: whoever is dead, and has it, is waited for")
                is_said = True
            time.sleep(_PAUSE_S)
    finally:
        parent.on_event = None
    if len(born) != 1:
        raise TorporError(f"clone3 in pid {parent.tid} made {len(born)} tasks")
    return born[0]


def _is_leaving(pid: TreePid, parent: Runner) -> bool:
    """Whether nobody has *pid* any more but somebody dead, or a group or session that may be about to go too."""
    found = _find_holder(pid, parent)
    return found is None or found.state in "ZX"


def _holder_of(pid: TreePid, parent: Runner) -> str:
    """Who has the *pid* of the pid namespace that *parent* is in, as far as we can see it."""
    level = len(read_status(parent.tid).ns_pids)
    found = _find_holder(pid, parent)
    if found is None:
        return _members_of(pid) if level == 1 else ""
    text = f" by {found.name}" + ("" if level == 1 else f", pid {found.tgid} here")
    if found.state not in "ZX":
        return text
    with suppress(OSError):
        text += f", which is dead, but pid {found.ppid} ({read_status(found.ppid).name}) has not waited for it"
    return text


def _find_holder(pid: TreePid, parent: Runner) -> Status | None:
    try:
        level = len(read_status(parent.tid).ns_pids)
        namespace = os.stat(f"/proc/{parent.tid}/ns/pid_for_children").st_ino
    except OSError:
        return None
    for name in [str(pid)] if level == 1 else filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended meanwhile
            status = read_status(Pid(int(name)))
            # What is dead has no namespace any more.
            is_ours = level == 1 or status.state in "ZX" or os.stat(f"/proc/{name}/ns/pid").st_ino == namespace
            if status.ns_pids[-1] == pid and is_ours:
                return status
    return None


def _members_of(pid: TreePid) -> str:
    """Who is in the process group or the session that is numbered *pid*, and whose leader is gone."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            status = read_status(Pid(int(name)))
            if pid in (status.ns_pgids[0], status.ns_sids[0]):
                what = "process group" if pid == status.ns_pgids[0] else "session"
                return f" by the {what} of pid {name} ({status.name})"
    return ""


def event_message(tid: Pid) -> Pid:
    """PTRACE_GETEVENTMSG: at a clone, the new task."""
    buffer = bytearray(8)
    syscall("ptrace(GETEVENTMSG)", nr.ptrace, PTRACE_GETEVENTMSG, tid, 0, address_of(buffer))
    return Pid(int.from_bytes(buffer, "little"))


class Channel:
    """The socket pair by which descriptors get into puppets.

    All puppets share the far end; only one listens at a time.
    """

    #: How many descriptors go in one message (SCM_MAX_FD).
    MOST = 253

    def __init__(self, far_number: int) -> None:
        #: The far end's number in every puppet, above all that the images use.
        self.far_number = far_number
        self._near, self.far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def again(self) -> Channel:
        """The same channel once more, to be closed by itself."""
        other = Channel.__new__(Channel)
        other.far_number = self.far_number
        other._near, other.far = _dup(self._near), _dup(self.far)
        return other

    def close(self) -> None:
        """Close our end, and our copy of the far one."""
        self._near.close()
        self.far.close()

    def give(self, batch: Batch, fds: Sequence[int], taken: set[int]) -> list[int]:
        """Have the puppet that runs *batch* next, and nobody else before, take our descriptors *fds* (MOST at a time);
        the numbers that they get there, all of them close-on-exec.

        *taken* are the numbers in use in the puppet (the far end's included); it is updated.  The kernel hands out the
        lowest free numbers in order, so they are known beforehand: what is added to the batch can use them.
        """
        if not fds:
            return []
        count, room = len(fds), self._send(batch, fds)

        def check() -> None:
            length = int.from_bytes(room.bytes()[:8], "little")
            if length != 16 + 4 * count:
                raise TorporError(f"a puppet received {(length - 16) // 4} descriptors instead of {count}")

        batch.then(check)
        return _lowest_free(taken, count)

    def lend(self, runner: Runner, fds: Sequence[int]) -> list[int]:
        """Put a few of our descriptors into the puppet, whatever it has; the numbers, which the caller closes."""
        batch, count = Batch(), len(fds)
        room = self._send(batch, fds)
        runner.run(batch)
        length = int.from_bytes(room.bytes()[:8], "little")
        if length != 16 + 4 * count:
            raise TorporError(f"pid {runner.tid} received {(length - 16) // 4} descriptors instead of {count}")
        return list(struct.unpack_from(f"{count}i", room.bytes(), 16))

    def _send(self, batch: Batch, fds: Sequence[int]) -> Data:
        """Send them, and add the call that receives them; where the control message then is."""
        self._near.sendmsg([b"f"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))])
        count = len(fds)
        room = batch.out(16 + 4 * count + 8)
        byte = batch.out(1)
        iov = batch.pack("QQ", byte, 1)
        header = batch.pack("QQQQQQQ", 0, 0, iov, 1, room, 16 + 4 * count + (-4 * count % 8), 0)
        batch.call(nr.recvmsg, self.far_number, header, MSG_CMSG_CLOEXEC)
        return room


def _dup(end: _socket.socket) -> _socket.socket:
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fileno=os.dup(end.fileno()))


def _lowest_free(taken: set[int], count: int) -> list[int]:
    found: list[int] = []
    number = 0
    while len(found) < count:
        if number not in taken:
            found.append(number)
            taken.add(number)
        number += 1
    return found


def place(batch: Batch, moves: Sequence[tuple[int, int, bool]]) -> None:
    """Add the calls that move descriptors from where they landed to where they belong.

    *moves* are (landed, wanted, close_on_exec), both ascending, wanted never below landed: done from the last to the
    first, no descriptor is overwritten before it has moved.
    """
    for landed, wanted, cloexec in reversed(moves):
        if landed == wanted:
            if not cloexec:
                batch.call(nr.fcntl, landed, 2, 0)
            continue
        batch.call(nr.dup3, landed, wanted, os.O_CLOEXEC if cloexec else 0)
        batch.call(nr.close, landed)
