"""What becomes of interrupted calls, by register values alone."""

import pytest

from torpor.kernel.arch import nr, restart
from torpor.kernel.arch.regs import (
    EINTR,
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    UserRegs,
)

MASK = (1 << 64) - 1
SA_RESTART = 0x10000000


def inside(number: int, error: int, **args: int) -> UserRegs:
    return UserRegs(ip=0x1002, orig_ax=number, ax=-error & MASK, **args)


@pytest.mark.parametrize(
    ("error", "flags", "again"),
    [
        (ERESTARTSYS, None, True),
        (ERESTARTSYS, SA_RESTART, True),
        (ERESTARTSYS, 0, False),
        (ERESTARTNOINTR, 0, True),
        (ERESTARTNOHAND, None, True),
        (ERESTARTNOHAND, SA_RESTART, False),
        (ERESTART_RESTARTBLOCK, SA_RESTART, False),
    ],
)
def test_a_handler_decides(error: int, flags: int | None, again: bool) -> None:
    regs = restart.outside(inside(nr.read, error), flags)
    assert (regs.ip, regs.ax) == ((0x1000, nr.read) if again else (0x1002, -EINTR & MASK))
    assert not regs.in_syscall


def test_a_finished_call_keeps_its_result() -> None:
    for value in (0, 7, -EINTR & MASK):
        regs = restart.outside(UserRegs(ip=0x1002, orig_ax=nr.read, ax=value))
        assert (regs.ip, regs.ax, regs.orig_ax) == (0x1002, value, MASK)


def test_outside_of_calls_nothing_changes() -> None:
    regs = UserRegs(ip=0x1002, orig_ax=MASK, ax=-ERESTARTSYS & MASK)
    assert restart.outside(regs) == regs


def test_sleeps_take_the_time_left() -> None:
    regs = restart.outside(inside(nr.nanosleep, ERESTART_RESTARTBLOCK, di=1, si=2))
    assert (regs.ax, regs.di, regs.si) == (nr.nanosleep, 2, 2)
    regs = restart.outside(inside(nr.nanosleep, ERESTART_RESTARTBLOCK, di=1, si=0))
    assert (regs.ax, regs.di) == (nr.nanosleep, 1)
    regs = restart.outside(inside(nr.clock_nanosleep, ERESTART_RESTARTBLOCK, dx=1, r10=2))
    assert (regs.ax, regs.dx) == (nr.clock_nanosleep, 2)


def test_a_restarted_restart_gives_up() -> None:
    regs = restart.outside(inside(nr.restart_syscall, ERESTART_RESTARTBLOCK))
    assert (regs.ip, regs.ax) == (0x1002, -EINTR & MASK)


def test_endless_waits_do_not_see_the_stop() -> None:
    endless = inside(nr.epoll_wait, EINTR, r10=0xFFFFFFFF)
    assert restart.transparent(endless).ax == -ERESTARTNOHAND & MASK
    limited = inside(nr.epoll_wait, EINTR, r10=100)
    assert restart.transparent(limited) is limited
    assert restart.transparent(inside(nr.rt_sigtimedwait, EINTR, dx=0)).ax == -ERESTARTNOHAND & MASK
