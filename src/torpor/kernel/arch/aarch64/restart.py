"""What becomes of a system call that a stop has interrupted: the kernel has seen to it before the stop (``regs``).

A call that is to be made again stands before its instruction with its arguments.  The one exception is a call that
waits for a length of time: as the thread goes on the kernel has it call restart_syscall(2), and a new task makes the
whole call once more, for the time that is left is nowhere to be read.  A call that gives EINTR after any stop, as
epoll_wait(2) does (signal(7)), gives it: which its first argument was, the kernel does not tell.
"""

from __future__ import annotations

from torpor.kernel.arch.aarch64.regs import UserRegs


def transparent(regs: UserRegs) -> UserRegs:
    """*regs* as they are: the kernel has put the call back already."""
    return regs


def outside(regs: UserRegs, handler_flags: int | None = None) -> UserRegs:
    """The state with which a *new* task goes on where this one was."""
    return regs.copy()
