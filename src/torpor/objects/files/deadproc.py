"""Files of ``/proc/PID`` whose process is gone.

Kernel view
    The link says ``/proc/PID/... (deleted)``; reading gives ESRCH.
Image
    ``remap-fpath.img``: PROCFS, with the pid in place of a file's id.
Restore
    The root of the tree makes a process of that pid for as long as files are opened and directories entered.
Limits
    Other proc files that are gone (of a thread, of a closed descriptor) are refused.
"""

from __future__ import annotations

import contextlib
import os

from torpor.base.errors import RestoreError, TargetGoneError
from torpor.base.ids import TreePid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.objects.files.model import OpenFile
from torpor.objects.files.paths import locate, open_below, roots_of
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import clone
from torpor.tracee.remote import Runner, kill_and_reap

_WALL = 0x40000000


def dump(file: OpenFile, name: str, file_id: int, context: DumpContext) -> None:
    """Tie ``reg_file_entry`` *file_id* to the pid that *name* has in it."""
    top, _, rest = name.lstrip("/").partition("/")
    digits = rest.partition("/")[0]
    if top != "proc" or not digits.isdecimal():
        raise file.refuse(f"{file.target} is gone from /proc", hint="close it and try again")
    pid = int(digits)
    if is_alive(file, pid, context):
        raise file.refuse(f"{file.target} is gone, but pid {pid} lives", hint="close it and try again")
    remap = m.remap_file_path_entry(orig_id=file_id, remap_id=pid, remap_type=m.remap_type.PROCFS)
    context.image("REMAP_FPATH").add(remap)


def is_alive(file: OpenFile, pid: int, context: DumpContext) -> bool:
    """Whether there is a process of that pid in the file's own proc."""
    where, dir_fd = locate(roots_of(context).of_file(file), f"/proc/{pid}")
    try:
        os.stat(where, dir_fd=dir_fd)
    except OSError:
        return False
    return True


class StandIns:
    """Processes that have the pids of dead ones until all files are open and all directories are entered."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._made: dict[TreePid, Runner] = {}
        context.at(RestoreStage.NAMED, self.end)
        context.at(RestoreStage.CLOSED, self.end)

    def ensure(self, pid: TreePid) -> None:
        """See to it that a process *pid* exists."""
        if pid in self._made:
            return
        root = self._context.processes[0]
        if not root.is_born:
            raise RestoreError(f"there is no process yet that could stand for pid {pid}")
        self._made[pid] = clone(root.runner, flags=0, exit_signal=0, set_tid=[pid])

    def end(self) -> None:
        """Let them go; nothing is left of them."""
        while self._made:
            pid, runner = self._made.popitem()
            kill_and_reap([runner.thread])
            batch = Batch()
            batch.call(nr.wait4, pid, 0, _WALL, 0, may_fail=True)
            with contextlib.suppress(TargetGoneError):  # after a restore that failed
                self._context.processes[0].runner.run(batch)


def restore(reg: m.reg_file_entry, pid: TreePid, flags: int, context: RestoreContext) -> int:
    """Open *reg* while a process *pid* exists."""
    context.part(StandIns).ensure(pid)
    return open_below(*context.files.place_of_reg(reg), flags)
