"""Syscall User Dispatch: prctl(PR_SET_SYSCALL_USER_DISPATCH), for programs that emulate or confine others.

Kernel view
    PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, of each thread.
Image
    ``torpor_dispatch``.  Such images have a version that other readers refuse.
Restore
    PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, when the thread will make no more calls for us.
Limits
    A kernel before 6.4 does not tell.  There a program is refused whose calls are dispatched when it is met; of one
    that handles SIGSYS and has the dispatch off just then, it is lost, which the log says.
"""

from __future__ import annotations

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.objects.model import DumpThread, RestoreThread
from torpor.tracee import dispatch


def dump(thread: DumpThread) -> None:
    """Fill in the field; before the thread is borrowed."""
    found = dispatch.read(thread.thread)
    if found is None and thread.is_leader and dispatch.may_be_unseen(thread.thread):
        log.warn(
            f"pid {thread.tid} handles SIGSYS: this kernel (before 6.4) does not tell whether that is for Syscall User "
            "Dispatch, which would be lost"
        )
    if found is not None:
        entry = thread.core.thread_core.torpor_dispatch
        entry.selector, entry.offset, entry.length = found.selector, found.offset, found.length


def restore(thread: RestoreThread) -> None:
    """Have the thread's calls dispatched as the image says.  RestoreError where this kernel (before 6.4) cannot."""
    core = thread.core.thread_core
    if not core.HasField("torpor_dispatch"):
        return
    entry = core.torpor_dispatch
    try:
        dispatch.arm(thread.runner.thread, dispatch.Dispatch(entry.selector, entry.offset, entry.length))
    except OSError as error:
        raise RestoreError(
            f"thread {thread.ns_tid}: its Syscall User Dispatch cannot be armed: {error.strerror}",
            hint="this needs Linux 6.4 or later",
        ) from error
