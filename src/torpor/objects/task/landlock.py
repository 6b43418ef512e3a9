"""Landlock domains, by which a program confines itself: landlock_restrict_self(2).

Kernel view
    None: the kernel tells nobody who is in one.  It does forbid who is in one to look at a task that is not
    (hook_ptrace_access_check in security/landlock), so a task whose capabilities allow it everything else is asked to
    compare itself with us (kcmp(2)).  Of others, or where that fails: the kernel refuses to nest more than sixteen
    (E2BIG), so a twin of the task (``tracee.twin``), which inherits its domain, enters one after the other: fewer than
    sixteen means that it was in some.
Image
    None: a domain cannot be read, so a task in one is refused.
Restore
    None: nobody could make it again.
Limits
    Of the threads of a process that has many only the first is looked at, and those with no_new_privs, as who confines
    itself without privileges must be.  Where no twin can be made (a limit on processes) it is not known, which is told.
"""

from __future__ import annotations

import errno
import functools
import os
import struct

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError
from torpor.base.fds import OwnedFd
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.kcmp import KCMP_VM
from torpor.kernel.namespaces import isolated
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.prctl import PR_SET_NO_NEW_PRIVS
from torpor.objects.model import DumpThread
from torpor.tracee import twin
from torpor.tracee.batch import Batch, Result
from torpor.tracee.borrow import BorrowedRunner

_MAX_LAYERS = 16
_FEW = 16
_CAP_SYS_PTRACE, _CAP_SYS_ADMIN = 1 << 19, 1 << 21
_CREATE_RULESET_VERSION = 1
_ACCESS_FS_MAKE_BLOCK = 1 << 11
_CLOSE_RANGE_UNSHARE = 2
_ALL_ABOVE = 0xFFFFFFFF


@functools.cache
def is_possible() -> bool:
    """Whether this kernel has Landlock."""
    try:
        return syscall("landlock_create_ruleset", nr.landlock_create_ruleset, 0, 0, _CREATE_RULESET_VERSION) > 0
    except OSError:
        return False


def confines_us() -> bool:
    """Whether we are in a domain ourselves, as everything will be that we make."""
    if not is_possible():
        return False

    def count() -> int:
        attributes = bytearray(struct.pack("<Q", _ACCESS_FS_MAKE_BLOCK))
        fd = syscall("landlock_create_ruleset", nr.landlock_create_ruleset, address_of(attributes), len(attributes), 0)
        with OwnedFd(fd) as ruleset:
            # All of this is the thread's alone, and ends with it.
            syscall("prctl(NO_NEW_PRIVS)", nr.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            for entered in range(_MAX_LAYERS):
                try:
                    syscall("landlock_restrict_self", nr.landlock_restrict_self, ruleset.fileno(), 0)
                except OSError as error:
                    if error.errno == errno.E2BIG:
                        return entered
                    raise
        return _MAX_LAYERS

    try:
        return isolated(count) < _MAX_LAYERS
    except OSError:
        return False


@functools.cache
def are_we_free() -> bool:
    """Whether we are in no domain; a task in one is forbidden to look at us then."""
    return is_possible() and not confines_us()


def ask(thread: DumpThread, batch: Batch) -> Result | None:
    """Have a thread look at us, if a domain is all that could forbid it; a result that is no error says there is none.

    None where something else could, or would log that it did.
    """
    status = thread.status
    may = status.cap_effective & _CAP_SYS_PTRACE and len(status.ns_tgids) == 1 and not lsm.active()
    if not may or not is_suspect(thread) or not are_we_free():
        return None
    return batch.call(nr.kcmp, thread.tid, os.getpid(), KCMP_VM, 0, 0, may_fail=True)


def check(thread: DumpThread, runner: BorrowedRunner) -> None:
    """RefusedError for a thread, borrowed by *runner*, that is in a domain."""
    try:
        confined = _count_enterable(thread, runner) < _MAX_LAYERS
    except KernelError as error:
        log.warn(f"{thread.process.describe()}: whether it is confined by Landlock cannot be told: {error}")
        return
    if confined:
        raise RefusedError(
            f"{thread.process.describe()} has confined itself by Landlock, which cannot be carried",
            hint="it would be free after a restore, for the kernel tells nobody what a Landlock domain allows",
        )


def is_suspect(thread: DumpThread) -> bool:
    """Whether the thread is to be looked at."""
    if not is_possible():
        return False
    if thread.is_leader or thread.status.no_new_privs:
        return True
    few = len(thread.process.threads) <= _FEW
    return few and bool(thread.status.cap_effective & _CAP_SYS_ADMIN)


def _count_enterable(thread: DumpThread, runner: BorrowedRunner) -> int:
    """How many more domains a twin of the thread can enter; KernelError where that cannot be found out."""
    batch = Batch()
    # An empty table of its own: nothing of the task is duplicated, and nothing is left in it if the twin is killed.
    batch.call(nr.close_range, 0, _ALL_ABOVE, _CLOSE_RANGE_UNSHARE, may_fail=True)
    number = 0
    attributes = batch.data(struct.pack("<Q", _ACCESS_FS_MAKE_BLOCK))
    ruleset = batch.call(nr.landlock_create_ruleset, attributes, attributes.size, 0, may_fail=True)
    batch.call(nr.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, may_fail=True)
    entered = [batch.call(nr.landlock_restrict_self, number, 0, may_fail=True) for _ in range(_MAX_LAYERS)]
    batch.call(nr.close, ruleset, may_fail=True)
    twin.run(runner, batch)
    if ruleset.value != number:
        raise KernelError("landlock_create_ruleset in a twin", ruleset.errno or errno.EBADF)
    for each in entered:
        if each.errno not in (0, errno.E2BIG):
            raise KernelError("landlock_restrict_self in a twin", each.errno)
    return sum(1 for each in entered if not each.errno)
