"""Running batches in a traced thread by the loop of :mod:`torpor.kernel.arch`.

``Scratch`` is where the loop and its records lie in an address space; a :class:`Runner` drives one thread that is
stopped and whose registers may be used up (a puppet).  :mod:`torpor.tracee.borrow` adds what it takes to do so in a
task that is somebody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel import ptrace, signal, vm
from torpor.kernel.arch import loop
from torpor.kernel.arch.regs import UserRegs, of_new_task
from torpor.tracee import dispatch
from torpor.tracee.batch import Batch
from torpor.tracee.thread import WALL, Stop, Thread

_ALL_SIGNALS = (1 << 64) - 1
_PART_ALIGN = 64
_SIGRTMAX = 64
FAULTS = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP))


@dataclass(frozen=True, slots=True)
class Scratch:
    """Addresses in the target: the loop's code, and memory for records and data."""

    code: int
    data: int
    size: int

    def part(self, index: int, count: int) -> Scratch:
        """Part number *index* of *count* equal ones of the memory, for one of several threads at work at once."""
        size = self.size // count & -_PART_ALIGN
        return Scratch(self.code, self.data + index * size, size)


def mask_bit(number: int) -> int:
    """A signal's bit in a mask."""
    return 1 << (number - 1)


class Runner:
    """Makes a stopped thread run batches.  Its registers and mask are ours to use; nothing is given back."""

    def __init__(self, thread: Thread, scratch: Scratch, *, stop_signal: int = signal.SIGURG) -> None:
        self.thread = thread
        self.scratch = scratch
        self.stop_signal = stop_signal
        self._mask = _ALL_SIGNALS & ~mask_bit(stop_signal)
        self._mask_set = False
        self._running: tuple[Batch, bytearray, Scratch] | None = None
        #: Have the thread stop at each call, and at the loop's end: for a task that may not send itself a signal.
        self.by_calls = False
        self._ends_seen = 0
        #: Called when all is ready for a batch, just before the thread goes on.
        self.on_start: Callable[[], None] | None = None
        #: Called at each ptrace event stop (a clone), while the thread is stopped there.
        self.on_event: Callable[[], None] | None = None
        self._at_pause: Callable[[list[int]], None] | None = None
        self._base_regs = of_new_task()

    @property
    def tid(self) -> Pid:
        """The id of the thread in our pid namespace."""
        return self.thread.tid

    def spare_signals(self, numbers: Collection[int]) -> None:
        """End the loop by a signal other than *numbers*, which are pending and must stay so.  Only for a puppet."""
        if self.stop_signal in numbers:
            taken = {*numbers, signal.SIGKILL, signal.SIGSTOP}
            self.stop_signal = next((number for number in range(_SIGRTMAX, 0, -1) if number not in taken), 0)
            if not self.stop_signal:
                raise TorporError("every signal there is is pending")
            self._mask = _ALL_SIGNALS & ~mask_bit(self.stop_signal)
            self._mask_set = False

    def start_from(self, regs: UserRegs) -> None:
        """Run batches with what *regs* say of the kind of code, of thread-local storage and of the stack."""
        self._base_regs = regs.copy()
        self._base_regs.leave_syscall()

    def run(self, batch: Batch) -> None:
        """Run *batch* and fill in its results.

        RemoteCallError: a call failed.  TargetGoneError: the thread died.  TorporError: it faulted inside the loop.
        """
        if len(batch):
            self.begin(batch)
            self.finish()

    def run_pausing(self, batch: Batch, at_pause: Callable[[list[int]], None]) -> None:
        """As ``run``; where *batch* has the thread send itself ``stop_signal``, *at_pause* is told the results so far.

        It may be told more than once.  If we die meanwhile the rest of the batch is run all the same, and so it is,
        before the error is raised, where *at_pause* raises one.
        """
        self._at_pause = at_pause
        try:
            self.run(batch)
        finally:
            self._at_pause = None

    def begin(self, batch: Batch, scratch: Scratch | None = None) -> None:
        """Let the thread start on *batch*; ``finish`` must follow.  *scratch*: use only this part of ours."""
        self._running = (batch, self.start(batch, scratch), scratch or self.scratch)
        self._ends_seen = 0
        if self.on_start is not None:
            self.on_start()
        self._go_on()

    def finish(self) -> None:
        """Wait for the end of what ``begin`` began; as ``run``."""
        assert self._running is not None
        (batch, memory, scratch), self._running = self._running, None
        failed: Exception | None = None
        while True:
            self._wait_stopped()
            vm.read_into(self.thread.tid, [(scratch.data, len(memory))], memoryview(memory))
            if batch.has_ended(memory):
                break
            if self._at_pause is not None and failed is None:
                try:
                    self._at_pause(batch.results_in(memory))
                except Exception as error:
                    failed = error
            # A signal of the kind that ends the loop came from elsewhere.  It is one that the task ignores.
            self._go_on()
        batch.decode(memory)
        if failed is not None:
            raise failed

    def start(self, batch: Batch, scratch: Scratch | None = None) -> bytearray:
        """Prepare everything for a run of *batch*, which begins when the thread goes on; its records."""
        scratch = scratch or self.scratch
        if batch.size > scratch.size:
            raise TorporError(f"a batch of {len(batch)} calls needs {batch.size} bytes of scratch memory")
        memory = batch.encode(scratch.data)
        vm.write_from(self.thread.tid, [(scratch.data, len(memory))], memoryview(memory))
        regs = self._base_regs.copy()
        loop.start(regs, scratch.code, scratch.data, len(batch), self.stop_signal, self._return_frame())
        self.thread.set_regs(regs)
        if not self._mask_set:
            self.thread.set_sigmask(self._mask)
            self._mask_set = True
        return memory

    def flush(self, batch: Batch) -> Batch:
        """*batch*, or, once it fills half of the scratch memory, a new one after it has been run."""
        if batch.size < self.scratch.size // 2:
            return batch
        self.run(batch)
        return Batch()

    def _return_frame(self) -> int:
        return 0

    def _go_on(self) -> None:
        if self.by_calls:
            self.thread.cont_to_syscall()
        else:
            self.thread.cont()

    def _is_at_end(self) -> bool:
        """Of a thread that is stopped at a call: whether it has made the first one behind the last record's."""
        if self.thread.get_regs().ip == self.scratch.code + loop.DONE_OFFSET:
            self._ends_seen += 1
        return self._ends_seen == 2

    def _wait_stopped(self) -> None:
        """Wait for the signal that ends the loop (or for one like it)."""
        while True:
            stop = self.thread.wait()
            if stop.is_signal and stop.signal == self.stop_signal:
                return
            if stop.is_syscall and self._is_at_end():
                return
            if stop.is_signal:
                dispatch.refuse_if_dispatched(self.thread, stop)
                self._mask_set &= stop.signal not in FAULTS  # the kernel has opened it for that one
                refuse_fault(self.thread, stop)
            if stop.event and stop.event != ptrace.PTRACE_EVENT_STOP and self.on_event is not None:
                self.on_event()
            if stop.is_signal:
                self.thread.deferred.append(stop.signal)
            self._go_on()


def refuse_fault(thread: Thread, stop: Stop) -> None:
    """TorporError where the signal that *thread* has stopped for says that what it does for us cannot be done.

    Let go, it would do the same again.  One that was sent to it is no fault.
    """
    if stop.signal in FAULTS and ptrace.signal_code(thread.tid) > 0:
        raise TorporError(
            f"pid {thread.tgid} got signal {stop.signal} at {thread.get_regs().ip:#x} while it worked for us",
            hint="its code or its memory there cannot be had: a file cut short, a file system that fails",
        )


def kill_and_reap(threads: list[Thread], sent: Callable[[], None] | None = None) -> None:
    """SIGKILL the processes of *threads* (all of which we trace), call *sent*, and wait for every thread, as they come.

    None may be waited for by itself: a leader is not reaped before its other threads, and the first process of a pid
    namespace ends, by whichever of its threads is the last, only when all others in it, its own threads among them,
    have been reaped.
    """
    import os

    for tgid in {thread.tgid for thread in threads}:
        try:
            os.kill(tgid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if sent is not None:
        sent()
    left = {thread.tid for thread in threads if not _is_reaped(thread.tid)}
    while left:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | WALL)
        except ChildProcessError:
            return
        if ended is not None and ended.si_pid in left:
            tid = Pid(ended.si_pid)
            left -= {tid} if _is_reaped(tid) else set()
            continue
        # A child that is not ours to wait for has ended; as long as it is there, waitid shows it and not the next one.
        time.sleep(0.001)
        _reap_born(left)
        left = {tid for tid in left if not _is_reaped(tid)}


def _reap_born(pids: set[Pid]) -> None:
    """Wait for those of their children and threads that we trace and nobody has noted: born just as the work failed.

    The first process of a pid namespace does not end before they have been waited for, nor any before its threads.
    """
    from torpor.kernel.procfs.task import read_children, read_threads

    for pid in pids:
        try:
            born = [*read_children(pid), *(tid for tid in read_threads(pid) if tid != pid)]
        except OSError:
            continue
        for each in born:
            _is_reaped(each)


def _is_reaped(tid: Pid) -> bool:
    """Whether the thread has been waited for, if need be by this call; does not block, and passes over its stops."""
    import os

    try:
        pid, status = os.waitpid(tid, WALL | os.WNOHANG)
    except ChildProcessError:
        return True
    return pid == tid and not os.WIFSTOPPED(status)
