"""What becomes of a system call that a stop has interrupted.

A stopped thread shows the call's number in ``orig_ax`` and -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND or
-ERESTART_RESTARTBLOCK as its result: what the kernel will do as the thread goes on, which also depends on whether a
signal handler runs first.  Source: ``arch_do_signal_or_restart`` in arch/x86/kernel/signal.c.
"""

from __future__ import annotations

from torpor.kernel.arch.x86_64 import nr
from torpor.kernel.arch.x86_64.regs import (
    EINTR,
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    UserRegs,
)

_MASK = (1 << 64) - 1
_MASK_INT = (1 << 32) - 1
SA_RESTART = 0x10000000
_FUTEX_CMD_MASK = 0x7F
# WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2: until a point in time.  WAIT is for a length, and may wake for nothing.
_FUTEX_WAITS_UNTIL = (9, 11, 13)


def transparent(regs: UserRegs) -> UserRegs:
    """*regs*, so that a call which waits without a time limit goes on waiting when the thread does.

    A few calls give EINTR after any stop, job control included (signal(7)).  The program need not see ours: such a
    result is replaced by -ERESTARTNOHAND, with which the kernel makes the call again unless a handler runs.
    """
    if not regs.in_syscall or regs.ax != -EINTR & _MASK or not _waits_for_ever(regs):
        return regs
    regs = regs.copy()
    regs.ax = -ERESTARTNOHAND & _MASK
    return regs


def _waits_for_ever(regs: UserRegs) -> bool:
    number = regs.orig_ax
    if number in (nr.epoll_wait, nr.epoll_pwait):
        return regs.r10 & _MASK_INT == _MASK_INT
    if number in (nr.epoll_pwait2, nr.semtimedop):
        return regs.r10 == 0
    if number == nr.rt_sigtimedwait:
        return regs.dx == 0
    if number == nr.io_getevents:
        return regs.r8 == 0
    return number == nr.semop


def outside(regs: UserRegs, handler_flags: int | None = None) -> UserRegs:
    """The state with which a *new* task, or one that lost its restart block, goes on where this one was.

    *handler_flags* are the ``sa_flags`` of the handler that will run first, None where none will.  A call that has
    not done anything yet is made again.  One that waits for a length of time: what is left of it where the kernel has
    told the program (nanosleep's second argument), all of it otherwise; nobody can read the deadline itself.
    """
    regs = transparent(regs).copy()
    if regs.in_syscall:
        error = -((regs.ax ^ (1 << 63)) - (1 << 63))
        if error in (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK):
            if _is_made_again(error, handler_flags) and (error != ERESTART_RESTARTBLOCK or _take_time_left(regs)):
                regs.ax = regs.orig_ax
                regs.ip -= 2
            else:
                regs.ax = -EINTR & _MASK
    regs.orig_ax = _MASK
    return regs


def _is_made_again(error: int, handler_flags: int | None) -> bool:
    if handler_flags is None or error == ERESTARTNOINTR:
        return True
    return error == ERESTARTSYS and bool(handler_flags & SA_RESTART)


def _take_time_left(regs: UserRegs) -> bool:
    """Whether the call can be made again; its arguments are changed to ask for the time left."""
    if regs.orig_ax == nr.nanosleep:
        regs.di = regs.si or regs.di
        return True
    if regs.orig_ax == nr.clock_nanosleep:
        regs.dx = regs.r10 or regs.dx
        return True
    if regs.orig_ax == nr.futex:
        return regs.si & _FUTEX_CMD_MASK in _FUTEX_WAITS_UNTIL
    return regs.orig_ax == nr.poll
