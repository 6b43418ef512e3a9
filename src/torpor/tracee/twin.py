"""A twin: a child of a borrowed task that exists for one batch, and for what cannot be taken back once tried.

It shares the task's memory and descriptors and has copies of its credentials.  No signal tells of its end and wait(2)
does not see it (exit_signal 0).  We may die at any instant: the kernel notes the twin's id as an argument of the
first call that follows its birth, in which both it and its parent kill it; once it has its batch, it ends with that, or
is killed in its midst: a batch that opens something gets descriptors of its own before (CLOSE_RANGE_UNSHARE).
"""

from __future__ import annotations

from torpor.base.errors import TargetGoneError
from torpor.kernel import lsm, ptrace, vm
from torpor.kernel.arch import loop, nr
from torpor.kernel.signal import SIGKILL
from torpor.kernel.uapi.sched import CLONE_CHILD_SETTID, CLONE_FILES, CLONE_FS, CLONE_PARENT_SETTID, CLONE_VM
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner
from torpor.tracee.puppet import event_message
from torpor.tracee.remote import Runner, Scratch
from torpor.tracee.thread import WALL, Thread

_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES
NOBODY = 0x7FFFFFFF
_ARGUMENTS_SIZE = 88


def run(runner: BorrowedRunner, batch: Batch) -> None:
    """Have *batch* run by a twin of the thread that *runner* has borrowed; all of its calls may fail.

    RemoteCallError: no twin can be made (a limit on processes).
    """
    ours, its = runner.scratch.part(0, 2), runner.scratch.part(1, 2)
    batch.end(nr.exit_group, 0)
    runner.on_event = lambda: _use(Thread(*[event_message(runner.tid)] * 2), runner, its, batch)
    bear(runner, ours, _FLAGS)


def bear(runner: BorrowedRunner, scratch: Scratch, flags: int) -> None:
    """Have a child born, traced by us, which ``runner.on_event`` is called to see to, while its parent is stopped.

    RemoteCallError: it cannot be made.
    """
    trace(runner.thread, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_TRACECLONE)
    try:
        runner.begin(_birth(scratch, flags, lsm.may_signal_itself(runner.tid, SIGKILL)), scratch)
        runner.finish()
    finally:
        runner.on_event = None
        trace(runner.thread, ptrace.PTRACE_O_TRACESYSGOOD)


def to_wait_for(scratch: Scratch) -> int:
    """The address of the number of the child that its parent is going to wait for."""
    return scratch.data + 2 * loop.RECORD_SIZE + loop.ARG_OFFSET


def _birth(scratch: Scratch, flags: int, may_kill: bool) -> Batch:
    batch = Batch()
    to_kill = scratch.data + loop.RECORD_SIZE + loop.ARG_OFFSET
    # The child's own kernel entry notes whom to kill, which is itself; whom to wait for must be there before it runs.
    args = batch.pack(
        "QQQQQQQQQQQ", flags | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, 0, to_kill, to_wait_for(scratch), *[0] * 7
    )
    batch.call(nr.clone3, args, _ARGUMENTS_SIZE)
    # Where its domain forbids that, it would only be logged.
    batch.call(nr.tkill if may_kill else nr.getpid, 0, SIGKILL, may_fail=True)
    batch.call(nr.wait4, NOBODY, 0, WALL, 0, may_fail=True)
    return batch


def _use(twin: Thread, runner: BorrowedRunner, scratch: Scratch, batch: Batch) -> None:
    """While its parent is stopped at its birth."""
    twin.wait_interrupted()
    child = Runner(twin, scratch, stop_signal=runner.stop_signal)
    child.start_from(twin.get_regs())
    memory = child.start(batch, scratch)
    try:
        while True:
            twin.cont()
            twin.wait()
    except TargetGoneError:
        vm.read_into(runner.tid, [(scratch.data, len(memory))], memoryview(memory))
        batch.decode(memory)


def trace(thread: Thread, options: int) -> None:
    """With the thread's seccomp filters suspended, as far as we may; see ``tree``."""
    try:
        ptrace.set_options(thread.tid, options | ptrace.PTRACE_O_SUSPEND_SECCOMP)
    except OSError:
        ptrace.set_options(thread.tid, options)
