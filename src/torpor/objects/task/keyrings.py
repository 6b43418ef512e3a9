"""keyrings(7): the session keyring, and what is in it.

Kernel view
    keyctl(2) inside the task.
Image
    ``torpor_session_keyring``, its serial number, where a thread has another one than all sessions of its user share;
    1, which no keyring has, for one that tells nothing: revoked, expired, or closed to its own tasks.
Restore
    A new one, empty, for each number; before children are born and threads made that had the same.  The root puppet
    gets that of its user where we have one, whose keys are not the tree's.
    With SELinux it has the label of its first task, which it usually had.
Limits
    Keys are not carried: a session, process or thread keyring that has any is a warning.
"""

from __future__ import annotations

import errno

from torpor.base import log
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.objects.model import DumpThread, RestoreProcess, RestoreThread
from torpor.objects.task import lsm
from torpor.tracee.batch import Batch

_GET_ID, _JOIN_SESSION, _READ = 0, 1, 11
_THREAD, _PROCESS, _SESSION, _USER_SESSION = -1, -2, -3, -5
_MASK = (1 << 64) - 1
#: What is answered about a keyring that is there.
_HIDDEN = (errno.EACCES, errno.EKEYREVOKED, errno.EKEYEXPIRED)
_HIDDEN_NUMBER = 1
_NAMES = {_THREAD: "thread", _PROCESS: "process", _SESSION: "session"}


def ask(thread: DumpThread, batch: Batch) -> None:
    """Ask for the number, and for keys, of which the log warns; nothing if that would be denied, and logged."""
    if not lsm.may_search_own_keys(thread):
        return
    session = batch.call(nr.keyctl, _GET_ID, _SESSION, 0, may_fail=True)
    user = batch.call(nr.keyctl, _GET_ID, _USER_SESSION, 0, may_fail=True)
    sizes = {which: batch.call(nr.keyctl, _READ, which, 0, 0, may_fail=True) for which in _NAMES}

    def collect() -> None:
        is_common = False
        if session.errno in _HIDDEN:
            thread.core.thread_core.torpor_session_keyring = _HIDDEN_NUMBER
        elif session.errno or session.value == user.value:
            is_common = True
        else:
            thread.core.thread_core.torpor_session_keyring = session.value
        for which, size in sizes.items():
            if size.value > 0 and not (is_common and which == _SESSION):
                log.warn(f"{thread.process.describe()}: the keys in its {_NAMES[which]} keyring are not carried")

    batch.then(collect)


def reset(user: int, batch: Batch) -> None:
    """The user's common session keyring for the root puppet, where it must not have ours."""
    if _has_own():
        batch.call(nr.keyctl, _GET_ID, _USER_SESSION, 0, may_fail=True)  # makes it, if nobody has used it yet
        common = batch.path(f"_uid_ses.{user}")
        batch.call(nr.keyctl, _JOIN_SESSION, common, may_fail=True)


def restore_at_birth(process: RestoreProcess) -> None:
    """Before any child is born that shares it."""
    if _is_first(process) and _has_child_with_it(process):
        _join(process)


def restore_before_threads(process: RestoreProcess) -> None:
    """With all children there, which had none or others; before other threads are made that share it."""
    if _is_first(process) and not _has_child_with_it(process) and _has_thread_with_it(process):
        _join(process)


def restore(thread: RestoreThread, batch: Batch) -> None:
    """With all threads there, which had none or others."""
    process = thread.process
    leads = _is_first(process) and not _has_child_with_it(process) and not _has_thread_with_it(process)
    if leads if thread.is_leader else _number(thread) not in (0, _number(process.threads[0])):
        _join_new(thread, batch)


def _join(process: RestoreProcess) -> None:
    batch = Batch()
    _join_new(process.threads[0], batch)
    process.runner.run(batch)


def _join_new(thread: RestoreThread, batch: Batch) -> None:
    with lsm.labelling_keys(thread, batch):
        batch.call(nr.keyctl, _JOIN_SESSION, 0, may_fail=True)


def _number(thread: RestoreThread) -> int:
    return thread.core.thread_core.torpor_session_keyring


def _is_first(process: RestoreProcess) -> bool:
    number, parent = _number(process.threads[0]), process.parent
    return bool(number) and (parent is None or _number(parent.threads[0]) != number)


def _has_child_with_it(process: RestoreProcess) -> bool:
    number = _number(process.threads[0])
    return any(_number(child.threads[0]) == number for child in process.children if not child.is_zombie)


def _has_thread_with_it(process: RestoreProcess) -> bool:
    number = _number(process.threads[0])
    return any(_number(thread) == number for thread in process.threads[1:])


def _has_own() -> bool:
    """Whether we are in a session keyring that is not our user's common one."""
    try:
        session = syscall("keyctl", nr.keyctl, _GET_ID, _SESSION & _MASK, 0)
        return session != syscall("keyctl", nr.keyctl, _GET_ID, _USER_SESSION & _MASK, 0)
    except OSError as error:
        return error.errno in _HIDDEN
