"""Bringing a traced process into a state that only signals lead to: stopped by job control, or dead.

The process does not get as far as an instruction of its own: each time it is let go, a stop has been asked for before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from torpor.base.errors import TargetGoneError, TorporError
from torpor.base.ids import Pid
from torpor.kernel import signal
from torpor.kernel.procfs.stat import read_stat
from torpor.tracee.remote import mask_bit
from torpor.tracee.thread import Thread, tgkill

STOP_SIGNALS = frozenset((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_PATIENCE_S, _LOOK_EVERY_S = 1.0, 0.0005


def stop_group(threads: Sequence[Thread], number: int = signal.SIGSTOP) -> None:
    """Group-stop the process of *threads* (all of them, the main one first; stopped by us) by the signal *number*.

    The threads stay under our control.  The parent is notified as of any stop.  Where *number* does not stop the
    process (it has a handler, or its group is orphaned), SIGSTOP does.
    """
    leader = threads[0]
    mask = leader.get_sigmask()
    leader.set_sigmask(mask & ~mask_bit(number))
    for each in (number, signal.SIGSTOP):
        _deliver(leader, each)
        stop = leader.wait()
        if stop.is_group_stop:
            break
    else:
        raise TorporError(f"pid {leader.tgid} does not stop")
    leader.group_stop = stop.signal
    leader.set_sigmask(mask)
    for thread in threads[1:]:
        thread.interrupt()
        thread.cont()
        thread.wait_interrupted()


def await_stopped(pids: Iterable[Pid]) -> None:
    """Until each of these, which were let go stopped, is seen to be.

    Whoever traced them has stopped them in another way: they take it up again by themselves, as soon as a processor is
    free.  Not for long, for somebody may have them go on.
    """
    deadline = time.monotonic() + _PATIENCE_S
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            while read_stat(pid).state not in "TZX" and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY_S)


def die_by(thread: Thread, number: int) -> None:
    """Let the process of *thread* (its only one) die of the signal *number*; TorporError if that does not kill."""
    if number != signal.SIGKILL:
        thread.set_sigmask(~mask_bit(number) & (1 << 64) - 1)
    try:
        if number == signal.SIGKILL:
            tgkill(thread.tgid, thread.tid, number)
        else:
            _deliver(thread, number)
        thread.wait()
    except TargetGoneError:
        return
    raise TorporError(f"signal {number} does not kill pid {thread.tgid}")


def _deliver(thread: Thread, number: int) -> None:
    """Have the signal *number* act on the thread now; the stop that follows is for the caller to wait for.

    A tracer can put a signal in another's place only as that one is delivered; SIGSTOP is one that always is.
    """
    tgkill(thread.tgid, thread.tid, signal.SIGSTOP)
    thread.cont()
    while True:
        stop = thread.wait()
        if stop.is_signal and stop.signal == signal.SIGSTOP:
            break
        if stop.is_signal:
            thread.deferred.append(stop.signal)
        thread.cont()
    thread.interrupt()
    thread.cont(number)
