"""Files of ``/proc/PID`` whose process is gone.

Kernel view
    The link says ``/proc/PID/... (deleted)``; reading gives ESRCH.
Image
    ``remap-fpath.img``: PROCFS, with the pid in place of a file's id.
Restore
    The root of the tree makes a process of that pid for a moment, in which the file is opened.
Limits
    Other proc files that are gone (of a thread, of a closed descriptor) are refused.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.text import get_text
from torpor.kernel.arch import nr
from torpor.objects.files.model import FileDump, FileRestore, OpenFile
from torpor.objects.files.paths import open_below
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import clone
from torpor.tracee.remote import kill_and_reap

_WALL = 0x40000000


def dump(file: OpenFile, name: str, file_id: int, session: FileDump) -> None:
    """Tie ``reg_file_entry`` *file_id* to the pid that *name* has in it."""
    top, _, rest = name.lstrip("/").partition("/")
    digits = rest.partition("/")[0]
    if top != "proc" or not digits.isdecimal():
        raise file.refuse(f"{file.target} is gone from /proc", hint="close it and try again")
    pid = int(digits)
    if os.path.exists(f"/proc/{pid}"):
        raise file.refuse(f"{file.target} is gone, but pid {pid} lives", hint="close it and try again")
    remap = m.remap_file_path_entry(orig_id=file_id, remap_id=pid, remap_type=m.remap_type.PROCFS)
    session.image("REMAP_FPATH").add(remap)


def restore(reg: m.reg_file_entry, pid: int, flags: int, session: FileRestore) -> int:
    """Open *reg* while a process *pid* exists."""
    root = next((process for process in session.processes if process.is_born), None)
    if root is None:
        raise RestoreError(f"{get_text(reg.name)}: there is no process yet that could stand for pid {pid}")
    runner = clone(root.runner, flags=0, exit_signal=0, set_tid=[pid])
    try:
        return open_below(session.root_fd, get_text(reg.name), flags)
    finally:
        kill_and_reap([runner.thread])
        batch = Batch()
        batch.call(nr.wait4, pid, 0, _WALL, 0, may_fail=True)
        root.runner.run(batch)
