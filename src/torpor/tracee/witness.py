"""A witness of a thread's end: it learns of it before anything of the thread is given back, its tracees least of all.

A thread that is killed lets its tracees go (exit_notify) after it has closed its files, without waiting for anybody:
who reads from a socket that closes learns of it too late.  A tracer with PTRACE_O_TRACEEXIT is told at the beginning of
do_exit(), SIGKILL or not, and the thread stands still until the tracer lets it go on (ptrace(2)).
"""

from __future__ import annotations

import fcntl
import os
import select
from contextlib import suppress

from torpor.base.ids import Pid
from torpor.kernel import ptrace, signal
from torpor.tracee.fate import STOP_SIGNALS
from torpor.tracee.thread import WALL

_TOLD = (signal.SIGCHLD, signal.SIGIO)


class Witness:
    """The calling process traces the thread *tid*, which runs on; signals that come for it are handed on.

    The process has one thread and no children; SIGCHLD and SIGIO are its own until ``close``.  *fd* is what else is
    waited for.  OSError EPERM where the thread cannot be traced: somebody else does, or it is not allowed to us.
    """

    def __init__(self, tid: Pid, fd: int) -> None:
        ptrace.seize(tid, ptrace.PTRACE_O_TRACEEXIT)
        self._tid, self._fd = tid, fd
        self._is_over = False
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)
        for number in _TOLD:
            signal.signal(number, signal.SIG_DFL)  # nothing is told to who ignores it
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, self._flags | os.O_ASYNC)

    def wait(self) -> bool:
        """Until *fd* can be read: False; or until the thread is about to end, or has: True from then on."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        while not self._is_ending():
            if poller.poll(0):
                return False
            signal.sigwait(_TOLD)
        return True

    def close(self) -> None:
        """The thread is traced no longer; where it is about to end it waits until this process has ended."""
        if not self._is_over:
            with suppress(ProcessLookupError):  # it is dead
                ptrace.interrupt(self._tid)
            self._detach()
        fcntl.fcntl(self._fd, fcntl.F_SETFL, self._flags)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # one that waits is nothing any more
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _is_ending(self) -> bool:
        while not self._is_over:
            try:
                tid, status = os.waitpid(self._tid, WALL | os.WNOHANG)
            except ChildProcessError:
                tid, status = self._tid, 0
            if not tid:
                return False
            self._is_over = not os.WIFSTOPPED(status) or status >> 16 == ptrace.PTRACE_EVENT_EXIT
            if not self._is_over:
                with suppress(ProcessLookupError):  # killed meanwhile
                    self._hand_on(status)
        return True

    def _hand_on(self, status: int) -> None:
        number = os.WSTOPSIG(status)
        if status >> 16 != ptrace.PTRACE_EVENT_STOP:
            ptrace.cont(self._tid, number)
        elif number in STOP_SIGNALS:
            ptrace.listen(self._tid)
        else:
            ptrace.cont(self._tid)

    def _detach(self) -> None:
        """Once it has stopped, for whatever; one that is about to end goes on with that."""
        while True:
            try:
                _, status = os.waitpid(self._tid, WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                return
            with suppress(ProcessLookupError):  # killed in the stop, it comes to another
                return ptrace.detach(self._tid, 0 if status >> 16 else os.WSTOPSIG(status))
