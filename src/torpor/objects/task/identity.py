"""Small properties of a process: personality, OOM score, login uid, nice value of its session.

Kernel view
    ``/proc/PID/personality``, ``oom_score_adj``, ``loginuid``, ``autogroup``.
Image
    ``task_core_entry``; ``torpor_autogroup_nice``, where it is not 0, of processes whose session is the tree's.
Restore
    personality(2) inside, once there is memory: READ_IMPLIES_EXEC would change the protections that the image gives.
    The OOM score by the conductor; the login uid, which a process can set only for itself, through the /proc it sees.
Limits
    An OOM score or login uid that we are not allowed to set is a warning: no program computes on them.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_WRONLY
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_NO_LOGIN = 0xFFFFFFFF


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the fields."""
    del batch
    core = process.core.tc
    core.personality = int(_read(process.pid, "personality"), 16)
    core.oom_score_adj = int(_read(process.pid, "oom_score_adj"))
    if nice := _read_autogroup(process):
        core.torpor_autogroup_nice = nice
    try:
        login = int(_read(process.pid, "loginuid"))
    except FileNotFoundError:
        return  # a kernel without audit
    login = process.idmaps.users.inside(login)
    if login != _NO_LOGIN:
        core.loginuid = login


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Set personality, OOM score, login uid and the session's nice value; what we may not set is a warning."""
    core = process.core.tc
    batch.call(nr.personality, core.personality)
    if core.HasField("oom_score_adj"):
        text = str(core.oom_score_adj)
        if _read(process.pid, "oom_score_adj") != text:
            _write(process, "oom_score_adj", text, "OOM score")
    if core.torpor_autogroup_nice:
        _write(process, "autogroup", str(core.torpor_autogroup_nice), "nice value of its session")
    _restore_login(process, core.loginuid if core.HasField("loginuid") else _NO_LOGIN, batch)


def _read_autogroup(process: DumpProcess) -> int:
    """The nice value that the scheduler gives to its session as a whole; 0 for one that the tree is only a part of."""
    if not process.status.ns_sids[-1]:
        return 0
    leads = process
    while leads.parent is not None:
        leads = leads.parent
    sid = leads.status.ns_sids[-1]
    if sid != leads.ns_pid and sid == process.status.ns_sids[-1]:
        return 0
    try:
        return int(_read(process.pid, "autogroup").rpartition(" ")[2] or 0)
    except (OSError, ValueError):
        return 0  # a kernel without


def _write(process: RestoreProcess, name: str, text: str, what: str) -> None:
    try:
        with open(f"/proc/{process.pid}/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
    except OSError as error:
        log.warn(f"pid {process.ns_pid} does not get its {what} of {text}: {error.strerror}")


def _restore_login(process: RestoreProcess, login: int, batch: Batch) -> None:
    try:
        wanted = login if login == _NO_LOGIN else process.idmaps.users.outside(login)
        if int(_read(process.pid, "loginuid")) == wanted:
            return
    except FileNotFoundError:
        return
    path = batch.path("/proc/self/loginuid")
    content = batch.data(str(login).encode())
    fd = batch.call(nr.openat, AT_FDCWD, path, O_WRONLY, 0, may_fail=True)
    written = batch.call(nr.write, fd, content, content.size, may_fail=True)
    batch.call(nr.close, fd, may_fail=True)

    def check() -> None:
        if written.errno:
            shown = "none" if login == _NO_LOGIN else str(login)
            log.warn(f"pid {process.ns_pid} does not get its login uid ({shown}): {os.strerror(written.errno)}")

    batch.then(check)


def _read(pid: Pid, name: str) -> str:
    return read_small(f"/proc/{pid}/{name}").strip()
