"""Controlling terminals: whose session a terminal belongs to, and which process group is in its foreground.

Kernel view
    The device and the foreground group in ``/proc/PID/stat`` of every process of the session.
Image
    ``sid`` and ``pgrp`` of ``tty_info_entry``, as the tree sees them; 0 for none.
Restore
    The session's leader takes the terminal (TIOCSCTTY) when somebody needs it, at the latest when all files are in
    place, and then names the foreground group (TIOCSPGRP).  ``/dev/tty`` is opened by the leader and fetched from it.
    With ``--shell-job`` the terminal is the one that we stand on; it is taken from its session if the tree has one
    of its own, and left to it otherwise.  In the background of a shell (``&``) it stays the shell's altogether: its
    foreground, its settings, its session.
Limits
    A foreground group that has died out is left out.  ``/dev/tty`` of a session whose leader is not in the tree cannot
    be opened again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import TreePid
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.uapi.ioctls import TIOCSCTTY, TIOCSPGRP
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_DEV_TTY = "/dev/tty"


def is_in_foreground() -> bool:
    """Whether we may do as we like with the terminal that we stand on; it is a shell's if another group is in front."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal, so nobody's job control


def owner_of(device: int, processes: Iterable[DumpProcess]) -> tuple[int, int]:
    """(session, foreground group) of the terminal *device*, as the tree sees them; zeroes where no process has it."""
    sid = foreground = pgrp = 0
    for process in processes:
        if process.stat.tty_nr == device:
            sid, foreground = process.status.ns_sids[-1], process.stat.tty_pgrp
            break
    for process in processes:
        if foreground > 0 and process.stat.pgrp == foreground:
            pgrp = process.status.ns_pgids[-1]
            break
    return sid, pgrp


class Sessions:
    """Which sessions have got their terminal during this restore."""

    def __init__(self, processes: Iterable[RestoreProcess]) -> None:
        self._leaders = {p.ns_pid: p for p in processes if p.entry.sid == p.ns_pid and not p.is_zombie}
        self._have: set[TreePid] = set()

    def has_leader(self, sid: TreePid) -> bool:
        """Whether the session's leader is in the tree."""
        return sid in self._leaders

    def acquire(self, info: m.tty_info_entry, path: str, *, steal: bool) -> None:
        """Make the terminal at *path* that of the session of *info*, unless it is by now."""
        sid = TreePid(info.sid)
        leader = self._leaders.get(sid)
        if leader is None or sid in self._have:
            return
        self._have.add(sid)
        number = _open_in(leader, path, os.O_RDWR)
        batch = Batch()
        batch.call(nr.ioctl, number, TIOCSCTTY, int(steal))
        batch.call(nr.close, number)
        leader.runner.run(batch)

    def set_foreground(self, info: m.tty_info_entry, path: str) -> None:
        """Put the group of *info* into the foreground; one that has died out since is nobody's loss."""
        leader = self._leaders.get(TreePid(info.sid))
        if leader is not None and info.pgrp:
            set_foreground(leader, info.pgrp, path)

    def open_dev_tty(self, info: m.tty_info_entry, path: str, flags: int) -> int:
        """/dev/tty as the session's leader opens it, here."""
        leader = self._leaders.get(TreePid(info.sid))
        if leader is None:
            raise ImageError(f"tty-info.img: {info.id}: session {info.sid} has no leader")
        number = _open_in(leader, path or _DEV_TTY, flags)
        try:
            with OwnedFd(open_pidfd(leader.pid)) as pidfd:
                return getfd(pidfd.fileno(), number)
        finally:
            batch = Batch()
            batch.call(nr.close, number)
            leader.runner.run(batch)


def set_foreground(process: RestoreProcess, pgrp: int, path: str) -> None:
    """Let *process* name the foreground group of its terminal, which is at *path*."""
    number = _open_in(process, path, os.O_RDWR)
    batch = Batch()
    batch.call(nr.ioctl, number, TIOCSPGRP, batch.data(struct.pack("i", pgrp)), may_fail=True)
    batch.call(nr.close, number)
    process.runner.run(batch)


def _open_in(process: RestoreProcess, path: str, flags: int) -> int:
    batch = Batch()
    wanted = flags | os.O_NOCTTY | os.O_CLOEXEC
    opened = batch.call(nr.openat, -100, batch.path(path), wanted, 0, may_fail=True)
    process.runner.run(batch)
    if opened.errno:
        raise RestoreError(f"pid {process.ns_pid} cannot open its terminal {path}: {os.strerror(opened.errno)}")
    return opened.value
