"""Syscall User Dispatch: system calls that a program has sent to its own SIGSYS handler instead of the kernel.

The kernel looks at a byte of the program's, the selector, at each call from outside of one range of addresses.  Where
it says "block", calls that a thread makes for us would be dispatched as well.  There, and only there, the dispatch is
off as long as we use the thread; if we die just then, that thread goes on without it.
"""

from __future__ import annotations

import errno

from torpor.base.records import dataclass
from torpor.kernel import ptrace, vm
from torpor.tracee.thread import Thread

_ALLOW = 0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where the selector is (0: none, all calls are dispatched), and the range whose calls are the kernel's."""

    selector: int
    offset: int
    length: int


def read(thread: Thread) -> Dispatch | None:
    """What *thread*, which is stopped, has; None where it has none, or the kernel (before 6.4) cannot tell."""
    try:
        mode, selector, offset, length = ptrace.get_user_dispatch(thread.tid)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):
            return None
        raise
    return Dispatch(selector, offset, length) if mode else None


def suspend(thread: Thread) -> Dispatch | None:
    """Have calls of *thread* reach the kernel; what ``resume`` is to be given, None where nothing had to be done."""
    found = read(thread)
    if found is None:
        return None
    try:
        if found.selector and vm.read(thread.tid, found.selector, 1)[0] == _ALLOW:
            return None
    except OSError:
        pass  # no such memory: its next call would end it, but ours must not
    ptrace.set_user_dispatch(thread.tid, 0, 0, 0, 0)
    return found


def resume(thread: Thread, found: Dispatch | None) -> None:
    """Arm it again."""
    if found is not None:
        arm(thread, found)


def arm(thread: Thread, wanted: Dispatch) -> None:
    """Have *thread* dispatch from here on; OSError where this kernel cannot, or the addresses are none.

    A range that ends before it begins is what the kernel makes of one whose calls alone are dispatched.
    """
    mode, offset, length = 1, wanted.offset, wanted.length
    end = (offset + length) & ((1 << 64) - 1)
    if length and end < offset:
        mode, offset, length = 2, end, -length & ((1 << 64) - 1)
    ptrace.set_user_dispatch(thread.tid, mode, wanted.selector, offset, length)
