"""Stopping a whole process tree while it forks, clones and dies under our hands.

Every thread found is seized and interrupted; then threads and children are looked for again, until a full pass finds
nothing new.  A stopped thread cannot make new tasks, so this ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from torpor.base import log
from torpor.base.errors import KernelError, NotPermittedError, RefusedError, TargetGoneError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.kernel import interrupts, ptrace
from torpor.kernel.kcmp import KCMP_VM, kcmp
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.stat import Stat, read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_children, read_threads
from torpor.tracee.thread import Thread
from torpor.tracee.vdso import Vdso

_SECCOMP_DISABLED = 0
#: Begins to trace a thread of a process and asks it to stop; None if it is gone.
Seize = Callable[[Pid, Pid], Thread | None]


@dataclass(slots=True)
class Process:
    """One process of a frozen tree.  ``threads`` is empty for a zombie; the leader comes first otherwise."""

    pid: Pid
    parent: Process | None
    threads: list[Thread] = field(default_factory=list)
    children: list[Process] = field(default_factory=list)
    is_zombie: bool = False

    @property
    def leader(self) -> Thread:
        """The thread whose id is the process's."""
        return self.threads[0]

    def iter_tree(self) -> Iterator[Process]:
        """This process and all below it, parents before children."""
        stack = [self]
        while stack:
            process = stack.pop()
            yield process
            stack.extend(reversed(process.children))


class FrozenTree:
    """A tree all of whose threads are in a ptrace stop.  ``release`` (or the end of the ``with``) lets it go on."""

    def __init__(self, root: Process) -> None:
        self.root = root
        #: Called before the tree is let go (True) or killed (False): a freezer that had it may take it again.
        self.before_end: Callable[[bool], None] | None = None
        self._released = False

    @property
    def processes(self) -> list[Process]:
        """All of them, parents before children."""
        return list(self.root.iter_tree())

    def release(self) -> None:
        """Let every thread go on as it was."""
        if self._released:
            return
        self._released = True
        try:
            self._tell_end(True)
        finally:
            for process in self.processes:
                for thread in process.threads:
                    thread.detach()

    def leave_stopped(self) -> None:
        """Let go, each process stopped as by SIGSTOP, and unstopped by SIGCONT."""
        from torpor.tracee.fate import await_stopped, stop_group

        for process in self.processes:
            if process.threads and not process.leader.group_stop:
                stop_group(process.threads)
        self.release()
        await_stopped(process.pid for process in self.processes if process.threads)

    def kill(self, sent: Callable[[], None] | None = None) -> None:
        """SIGKILL every process, call *sent*, after which none of them runs, and let go once all are dead.

        If we die meanwhile the kernel kills all, before any of them runs.
        """
        from torpor.tracee.remote import kill_and_reap

        self._tell_end(False)
        self._released = True
        for process in self.processes:
            if process.threads:
                process.leader.end_with_us()
        kill_and_reap([thread for process in self.processes for thread in process.threads], sent)

    def _tell_end(self, lives: bool) -> None:
        if self.before_end is not None:
            self.before_end(lives)

    def __enter__(self) -> FrozenTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Held:
    """Threads seized while something else keeps them from running: they stop as soon as that lets them go.

    What is not found by then is not missed: ``freeze`` looks for everything that is new once more.
    """

    def __init__(self) -> None:
        self._threads: dict[Pid, Thread] = {}

    def seize(self, pid: Pid) -> None:
        """Seize *pid* and everything below it, and wait for nothing.  As ``freeze``."""
        pids = [pid]
        for each in pids:
            stat = _stat_or_none(each)
            if stat is None or stat.state in "ZX":
                continue
            for tid in _threads_or_gone(each):
                if not _is_stopped(each, tid) and (thread := _seize(each, tid)) is not None:
                    self._threads[tid] = thread
            pids += [child for child in read_children(each) if not _is_in_vfork(each, child)]

    def take(self, pid: Pid, tid: Pid) -> Thread | None:
        """The thread, seized and about to stop; None if it is gone."""
        return self._threads.pop(tid, None) or _seize(pid, tid)

    def release(self) -> None:
        """Let go what nobody took: a process that has left the tree."""
        while self._threads:
            _, thread = self._threads.popitem()
            try:
                thread.wait_interrupted()
            except TargetGoneError:
                continue
            thread.detach()


def _is_in_vfork(parent: Pid, child: Pid) -> bool:
    """Whether a child has its parent's memory, as from vfork(2) until it executes something.

    Until then its parent waits, and stops for nobody.  Such a child may run when all is thawed, and is stopped later.
    """
    try:
        return kcmp(parent, child, KCMP_VM) == 0
    except OSError:
        return False


def _is_stopped(pid: Pid, tid: Pid) -> bool:
    """Whether a thread is stopped by job control, or might be.

    Where it is also frozen (by a freezer of v1), which is all that its state says then, PTRACE_SEIZE waits for it to
    change from one stop into the other, which it does not before it thaws (ptrace_attach in the kernel).
    """
    try:
        return read_small(f"/proc/{pid}/task/{tid}/wchan") in ("0", "do_signal_stop")
    except OSError:
        return True


def freeze(
    pid: Pid,
    *,
    before_stop: Callable[[Pid], None] | None = None,
    held: Held | None = None,
    entered: Mapping[Pid, Sequence[Pid]] | None = None,
) -> FrozenTree:
    """Stop *pid* and everything below it.

    TargetGoneError: no such process.  NotPermittedError: we may not trace it.  RefusedError: somebody else traces it.
    Whatever was stopped runs on after an error.  *before_stop* is called with each pid just before it is seized.
    *held* has threads that are seized already.  *entered*: processes taken for children of another, by its pid.
    """
    root = Process(pid, None)
    tree = FrozenTree(root)
    seize = held.take if held is not None else _seize
    try:
        _stop_process(root, before_stop, seize)
        while _stop_new_children(root, before_stop, seize, entered or {}):
            pass
    except BaseException:
        tree.release()
        raise
    return tree


def freeze_alone(pid: Pid) -> FrozenTree:
    """Stop all threads of the process *pid*, and nothing below it.  As ``freeze``."""
    process = Process(pid, None)
    try:
        _stop_process(process, None, _seize)
    except BaseException:
        FrozenTree(process).release()
        raise
    return FrozenTree(process)


def _stop_new_children(
    root: Process, before_stop: Callable[[Pid], None] | None, seize: Seize, entered: Mapping[Pid, Sequence[Pid]]
) -> bool:
    everyone = list(root.iter_tree())
    known = {process.pid for process in everyone}
    # In a second pass: a child that still ran when its parent, stopped, was looked at may have got a sibling
    # (CLONE_PARENT), or left an orphan.  Whoever had no child gets none any more.
    leaves = {process.pid for process in everyone if len(everyone) > 1 and not process.children}
    found = False
    for process in everyone:  # which grows
        if process.is_zombie or process.pid in leaves:
            continue
        others = entered.get(process.pid, ())
        for pid in [*read_children(process.pid), *others]:
            if pid in known:
                continue
            child = Process(pid, process)
            try:
                _stop_process(child, before_stop, seize)
            except TargetGoneError:
                continue
            if child.is_zombie and pid in others:
                continue  # it waits for its parent outside
            process.children.append(child)
            everyone.append(child)
            known.add(pid)
            found = True
    return found


def _stop_process(process: Process, before_stop: Callable[[Pid], None] | None, seize: Seize) -> None:
    stat = _stat_or_gone(process.pid)
    if stat.state in "ZX":
        if lives_on(process.pid):
            raise refuse_without_leader(process.pid)
        process.is_zombie = True
        return
    if before_stop is not None:
        before_stop(process.pid)
    known: dict[Pid, Thread] = {}
    vdso = Vdso(process.pid)
    while new := [tid for tid in _threads_or_gone(process.pid) if tid not in known]:
        fresh = [thread for tid in new if (thread := seize(process.pid, tid)) is not None]
        known |= dict.fromkeys(new, Thread(process.pid, Pid(0)))
        process.threads += fresh
        for thread in fresh:
            _wait_stopped(process, thread, vdso)
    process.threads.sort(key=lambda thread: thread.tid != process.pid)
    if not process.threads:
        if _stat_or_gone(process.pid).state in "ZX":
            process.is_zombie = True
            return
        raise TargetGoneError(f"pid {process.pid} is gone")
    if process.leader.tid != process.pid:
        raise refuse_without_leader(process.pid)


def lives_on(pid: Pid) -> bool:
    """Whether a process that looks dead, since its main thread is, has other threads that go on."""
    try:
        tids = read_threads(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    for tid in tids:
        try:
            if tid != pid and read_status(pid, tid).state not in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def refuse_without_leader(pid: Pid) -> RefusedError:
    """The error for such a process."""
    return RefusedError(
        f"pid {pid}: the main thread has exited while other threads go on",
        hint="such a process cannot be rebuilt; wait until it has ended",
    )


def _wait_stopped(process: Process, thread: Thread, vdso: Vdso) -> None:
    try:
        with interrupts.allowed():  # one that sleeps in the kernel may be long in coming
            thread.wait_interrupted()
            vdso.leave(thread)
    except TargetGoneError:
        process.threads.remove(thread)


def _seize(pid: Pid, tid: Pid) -> Thread | None:
    thread = Thread(pid, tid)
    try:
        _seize_unfiltered(thread)
        thread.interrupt()
    except TargetGoneError:
        return None
    except Exception as error:
        if getattr(error, "errno", 0) != errno.EPERM:
            raise
        reason = _why_not(pid, tid)
        if isinstance(reason, TargetGoneError):
            # A zombie may not be traced either. It is one that its parent has not waited for yet, so it is there.
            return None
        raise reason or error from error
    return thread


def _seize_unfiltered(thread: Thread) -> None:
    """Seize with the thread's seccomp filters suspended: they would kill it for what it is going to do for us.

    Any thread may have some (a filter need not be its process's), so this is asked for always, and where we may not
    (it needs CAP_SYS_ADMIN, and no filter on ourselves) it must be known that there is none.
    """
    try:
        thread.seize(ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_SUSPEND_SECCOMP)
    except KernelError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        try:
            status = read_status(thread.tgid, thread.tid)
        except (FileNotFoundError, ProcessLookupError):
            raise TargetGoneError(f"thread {thread.tid} of pid {thread.tgid} is gone") from error
        if status.seccomp_mode != _SECCOMP_DISABLED and not status.tracer and status.state not in "ZX":
            raise NotPermittedError(
                f"thread {thread.tid} of pid {thread.tgid} uses seccomp",
                hint="this needs CAP_SYS_ADMIN, and that torpor itself is under no seccomp filter",
            ) from error
        thread.seize(ptrace.PTRACE_O_TRACESYSGOOD)


def _why_not(pid: Pid, tid: Pid) -> Exception | None:
    try:
        status = read_status(pid, tid)
    except (FileNotFoundError, ProcessLookupError):
        return TargetGoneError(f"pid {pid} is gone")
    if status.state in "ZX":
        return TargetGoneError(f"thread {tid} of pid {pid} has exited")
    if status.tracer:
        return RefusedError(
            f"pid {pid} ({status.name}) is traced by pid {status.tracer}", hint="end the debugger or tracer first"
        )
    if pid == os.getpid():
        return RefusedError("torpor cannot freeze itself")
    log.debug(f"seize {tid}: not permitted")
    return NotPermittedError(
        f"pid {pid} ({status.name}) may not be traced", hint="run as root, or with CAP_SYS_PTRACE and its user"
    )


def _stat_or_gone(pid: Pid) -> Stat:
    try:
        return read_stat(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGoneError(f"no process has pid {pid}") from error


def _stat_or_none(pid: Pid) -> Stat | None:
    try:
        return read_stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _threads_or_gone(pid: Pid) -> list[Pid]:
    try:
        return read_threads(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGoneError(f"pid {pid} is gone") from error
