"""A twin: a child of a borrowed task that exists for one batch, and for what cannot be taken back once tried.

It shares the task's memory and descriptors and has copies of its credentials.  No signal tells of its end and wait(2)
does not see it (exit_signal 0).  We may die at any instant: the kernel notes the twin's id as an argument of the
first call that follows its birth, in which both it and its parent kill it; once it has its batch, it ends with that, or
is killed in its midst: a batch that opens something gets descriptors of its own before (CLOSE_RANGE_UNSHARE).
"""

from __future__ import annotations

from torpor.base.errors import TargetGoneError
from torpor.kernel import ptrace, vm
from torpor.kernel.arch import loop, nr
from torpor.kernel.signal import SIGKILL
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner
from torpor.tracee.puppet import event_message, set_options
from torpor.tracee.remote import Runner, Scratch
from torpor.tracee.thread import WALL, Thread

#: CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_PARENT_SETTID, CLONE_CHILD_SETTID.
_FLAGS = 0x100 | 0x200 | 0x400 | 0x100000 | 0x1000000
_NOBODY = 0x7FFFFFFF
_ARGUMENTS_SIZE = 88


def run(runner: BorrowedRunner, batch: Batch) -> None:
    """Have *batch* run by a twin of the thread that *runner* has borrowed; all of its calls may fail.

    RemoteCallError: no twin can be made (a limit on processes).
    """
    ours, its = runner.scratch.part(0, 2), runner.scratch.part(1, 2)
    batch.end(nr.exit_group, 0)
    runner.on_event = lambda: _use(Thread(*[event_message(runner.tid)] * 2), runner, its, batch)
    _set_options(runner.thread, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_TRACECLONE)
    try:
        runner.begin(_birth(ours), ours)
        runner.finish()
    finally:
        runner.on_event = None
        _set_options(runner.thread, ptrace.PTRACE_O_TRACESYSGOOD)


def _birth(scratch: Scratch) -> Batch:
    batch = Batch()
    to_kill, to_wait_for = (scratch.data + record * loop.RECORD_SIZE + loop.ARG_OFFSET for record in (1, 2))
    # The twin's own kernel entry notes whom to kill, which is itself; whom to wait for must be there before it runs.
    args = batch.pack("QQQQQQQQQQQ", _FLAGS, 0, to_kill, to_wait_for, 0, 0, 0, 0, 0, 0, 0)
    batch.call(nr.clone3, args, _ARGUMENTS_SIZE)
    batch.call(nr.tkill, 0, SIGKILL, may_fail=True)
    batch.call(nr.wait4, _NOBODY, 0, WALL, 0, may_fail=True)
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


def _set_options(thread: Thread, options: int) -> None:
    """With the thread's seccomp filters suspended, as far as we may; see ``tree``."""
    try:
        set_options(thread, options | ptrace.PTRACE_O_SUSPEND_SECCOMP)
    except OSError:
        set_options(thread, options)
