"""One thread that we trace: stopping it, waiting for it, letting it go.

A tracee may die at any instant (SIGKILL, the OOM killer); every method then raises :class:`TargetGoneError`.
"""

from __future__ import annotations

import os
from contextlib import suppress

from torpor.base.errors import KernelError, TargetGoneError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel import ptrace, signal
from torpor.kernel.arch import xstate
from torpor.kernel.arch.regs import UserRegs

WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a tracee stopped: a signal about to be delivered (event 0), a system call, or a ptrace event."""

    signal: int
    event: int

    @property
    def is_syscall(self) -> bool:
        """At the entry or exit of a system call."""
        return self.event == 0 and self.signal == SYSCALL_STOP

    @property
    def is_interrupt(self) -> bool:
        """The stop that PTRACE_INTERRUPT asked for, or a new tracee's first."""
        return self.event == ptrace.PTRACE_EVENT_STOP and self.signal == signal.SIGTRAP

    @property
    def is_group_stop(self) -> bool:
        """The process is stopped by a job-control signal, which is ``signal``."""
        return self.event == ptrace.PTRACE_EVENT_STOP and self.signal != signal.SIGTRAP

    @property
    def is_signal(self) -> bool:
        """A signal is about to be delivered."""
        return self.event == 0 and self.signal != SYSCALL_STOP


class Thread:
    """A thread under PTRACE_SEIZE.  Registers and masks may be read and set only while it is stopped."""

    __slots__ = ("deferred", "group_stop", "tgid", "tid")

    def __init__(self, tgid: Pid, tid: Pid) -> None:
        self.tgid = tgid
        self.tid = tid
        #: Signals that arrived while the thread worked for us and that must reach it afterwards.
        self.deferred: list[int] = []
        #: The job-control signal that the process was stopped by when we met it, or 0.
        self.group_stop = 0

    def seize(self, options: int = ptrace.PTRACE_O_TRACESYSGOOD) -> None:
        """Begin to trace; the thread runs on."""
        try:
            ptrace.seize(self.tid, options)
        except OSError as error:
            raise self._gone_or(error) from error

    def interrupt(self) -> None:
        """Ask for a stop; ``wait_interrupted`` sees it."""
        try:
            ptrace.interrupt(self.tid)
        except OSError as error:
            raise self._gone_or(error) from error

    def wait(self) -> Stop:
        """Wait for the thread to stop, whatever for; the stop.  TargetGoneError where it ends instead."""
        try:
            _, status = os.waitpid(self.tid, WALL)
        except ChildProcessError as error:
            raise TargetGoneError(f"thread {self.tid} of pid {self.tgid} is gone") from error
        if not os.WIFSTOPPED(status):
            raise TargetGoneError(f"thread {self.tid} of pid {self.tgid} ended (wait status {status:#x})")
        return Stop((status >> 8) & 0xFF, status >> 16)

    def wait_interrupted(self) -> None:
        """Wait for the stop asked for; signals that come first are delivered on the way."""
        while True:
            stop = self.wait()
            if stop.is_interrupt:
                return
            if stop.is_group_stop:
                self.group_stop = stop.signal
                return
            self.cont(stop.signal if stop.is_signal else 0)

    def cont(self, signal_number: int = 0) -> None:
        """Let the stopped thread run on, and deliver the signal *signal_number* to it unless that is 0."""
        try:
            ptrace.cont(self.tid, signal_number)
        except OSError as error:
            raise self._gone_or(error) from error

    def cont_to_syscall(self) -> None:
        """Run on to the next entry or exit of a system call."""
        try:
            ptrace.cont_to_syscall(self.tid)
        except OSError as error:
            raise self._gone_or(error) from error

    def detach(self) -> None:
        """Let go; a thread that has died meanwhile is no error.

        Signals that came while it worked for us are sent again, as they would have come without us.
        """
        try:
            ptrace.detach(self.tid)
        except ProcessLookupError:
            return
        for number in self.deferred:
            tgkill(self.tgid, self.tid, number)
        self.deferred.clear()

    def end_with_us(self) -> None:
        """From now on our death is the end of its process; one that has died meanwhile is no error."""
        with suppress(ProcessLookupError):
            ptrace.set_options(self.tid, ptrace.PTRACE_O_EXITKILL)

    def get_regs(self) -> UserRegs:
        """The general registers.  KernelError where the machine cannot give those of 32-bit code."""
        try:
            return ptrace.get_regs(self.tid)
        except OSError as error:
            raise self._gone_or(error) from error

    def set_regs(self, regs: UserRegs) -> None:
        """Set the general registers, all at once."""
        try:
            ptrace.set_regs(self.tid, regs)
        except OSError as error:
            raise self._gone_or(error) from error

    def get_xstate(self) -> bytes:
        """All registers but the general ones, in the kernel's layout, of whatever length this CPU has."""
        try:
            return xstate.read(self.tid)
        except OSError as error:
            raise self._gone_or(error) from error

    def set_xstate(self, data: bytes) -> None:
        """The counterpart of ``get_xstate``."""
        try:
            xstate.write(self.tid, data)
        except OSError as error:
            raise self._gone_or(error) from error

    def get_sigmask(self) -> int:
        """The blocked signals, bit n-1 for signal n."""
        try:
            return ptrace.get_sigmask(self.tid)
        except OSError as error:
            raise self._gone_or(error) from error

    def set_sigmask(self, mask: int) -> None:
        """Set the blocked signals, bit n-1 for signal n; the kernel leaves out SIGKILL and SIGSTOP."""
        try:
            ptrace.set_sigmask(self.tid, mask)
        except OSError as error:
            raise self._gone_or(error) from error

    def _gone_or(self, error: OSError) -> Exception:
        if isinstance(error, ProcessLookupError):
            return TargetGoneError(f"thread {self.tid} of pid {self.tgid} is gone")
        return KernelError(str(error.strerror).partition(":")[0], error.errno or 0)


def tgkill(tgid: Pid, tid: Pid, number: int) -> None:
    """Send a signal to one thread; one that is gone is no error."""
    from torpor.kernel.arch import nr
    from torpor.kernel.syscall import syscall

    try:
        syscall("tgkill", nr.tgkill, tgid, tid, number)
    except ProcessLookupError:
        return
