"""Syscall User Dispatch: system calls that a program has sent to its own SIGSYS handler instead of the kernel.

The kernel looks at a byte of the program's, the selector, at each call from outside of one range of addresses.  Where
it says "block", calls that a thread makes for us would be dispatched as well.  There, and only there, the dispatch is
off as long as we use the thread; if we die just then, that thread goes on without it.

A kernel before 6.4 has neither question nor switch.  There the first call that a thread makes for us tells, by the
SIGSYS that comes of it, which never reaches the program.
"""

from __future__ import annotations

import errno

from torpor.base.errors import RefusedError
from torpor.base.records import dataclass
from torpor.kernel import ptrace, signal, vm
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.siginfo import SYS_USER_DISPATCH
from torpor.tracee.thread import Stop, Thread

_ALLOW = 0
_SIGSYS = 1 << (signal.SIGSYS - 1)
#: What this kernel has answered: nothing yet, or that it can tell.
_answered: set[bool] = set()


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where the selector is (0: none, all calls are dispatched), and the range whose calls are the kernel's."""

    selector: int
    offset: int
    length: int


def read(thread: Thread) -> Dispatch | None:
    """What *thread*, which is stopped, has; None where it has none, or the kernel (before 6.4) cannot tell."""
    found = _ask(thread)
    return Dispatch(*found[1:]) if found is not None and found[0] else None


def _ask(thread: Thread) -> tuple[int, int, int, int] | None:
    try:
        found = ptrace.get_user_dispatch(thread.tid)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):
            return None
        raise
    _answered.add(True)
    return found


def may_be_unseen(thread: Thread) -> bool:
    """Whether *thread*, which is stopped, may have one that this kernel does not tell of: it handles SIGSYS."""
    return not _answered and _ask(thread) is None and bool(read_status(thread.tgid).caught & _SIGSYS)


def mask_for_calls(thread: Thread, mask: int) -> int:
    """Of *mask*, what may be blocked while *thread* makes calls for us.

    A signal that the kernel must deliver and that is blocked loses its handler for good (kernel/signal.c,
    force_sig_info_to_task), so SIGSYS stays open where it may come of a dispatched call.
    """
    return mask & ~_SIGSYS if mask & _SIGSYS and may_be_unseen(thread) else mask


def refuse_if_dispatched(thread: Thread, stop: Stop) -> None:
    """Raises RefusedError where the signal that *thread* has stopped for says that its call for us was dispatched."""
    if stop.signal == signal.SIGSYS and ptrace.signal_code(thread.tid) == SYS_USER_DISPATCH:
        raise RefusedError(
            f"thread {thread.tid} of pid {thread.tgid} has its system calls sent to its own handler "
            "(Syscall User Dispatch), which a kernel before 6.4 neither tells nor restores",
            hint="it can be checkpointed on Linux 6.4 and later",
        )


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
    """Have *thread* dispatch as before ``suspend``, whose answer *found* is; nothing where that is None.  OSError."""
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
