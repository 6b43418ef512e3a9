"""The directories of ``/proc/PID``: threads, children, descriptors."""

from __future__ import annotations

import _socket  # without the enumerations of `socket`
import os
from functools import cache

from torpor.base.ids import Pid
from torpor.kernel import signal
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status

#: PF_EXITING, PF_SIGNALED (include/linux/sched.h).
_PF_DYING = 0x4 | 0x400
_SIGKILL = 1 << signal.SIGKILL - 1


def read_threads(pid: Pid) -> list[Pid]:
    """Thread ids, the leader first.  FileNotFoundError when the process is gone."""
    return [Pid(tid) for tid in sorted(map(int, os.listdir(f"/proc/{pid}/task")))]


def read_children(pid: Pid) -> list[Pid]:
    """Children of all threads of *pid*, in the kernel's order; none of a process that is gone."""
    found: list[Pid] = []
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return found
    for tid in tids:
        try:
            found += [Pid(int(word)) for word in read_small(f"/proc/{pid}/task/{tid}/children").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def read_tree(pid: Pid) -> list[Pid]:
    """*pid* and everything below it; a tree that forks without a pause is seen as it was at some moment."""
    pids = [pid]
    for at in pids:
        pids += read_children(at)
    return pids


def is_dying(pid: Pid) -> bool:
    """Whether it is gone, a zombie, or has been killed: the last looks like one that runs until it has had its turn.

    On a busy machine that takes a while.  That the kernel has sent it SIGKILL is told until it takes it, a flag from
    then on (get_signal, kernel/signal.c): so they are looked at in that order.
    """
    try:
        status = read_status(pid)
        stat = read_stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return True
    was_sent = (status.pending | status.shared_pending) & _SIGKILL
    return bool(was_sent or stat.state in "ZX" or stat.flags & _PF_DYING)


def read_fds(pid: Pid) -> list[int]:
    """Open descriptor numbers, ascending."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))


def read_fd_link(pid: Pid, fd: int, info: os.stat_result) -> str:
    """What the link ``/proc/PID/fd/FD`` says of a file that stat(2) says *info* of."""
    head = _heads_of_nameless().get(info.st_dev)
    return os.readlink(f"/proc/{pid}/fd/{fd}") if head is None else f"{head}{info.st_ino}]"


@cache
def _heads_of_nameless() -> dict[int, str]:
    """By their device, how links begin of pipes and sockets, behind which comes the inode (pipefs_dname, sockfs_dname).

    To read one takes longer than all else that is asked of a pipe.
    """
    reader, writer = os.pipe()
    own = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        return {os.fstat(reader).st_dev: "pipe:[", os.fstat(own.fileno()).st_dev: "socket:["}
    finally:
        os.close(reader)
        os.close(writer)
        own.close()


def read_fdinfo(pid: Pid | str, fd: int) -> dict[str, str]:
    """``/proc/PID/fdinfo/FD`` up to its first repeated key; see ``read_fdinfo_lines`` for the kinds that repeat."""
    found: dict[str, str] = {}
    for line in read_fdinfo_lines(pid, fd):
        key, _, value = line.partition(":")
        found.setdefault(key, value.strip())
    return found


def read_fdinfo_lines(pid: Pid | str, fd: int) -> list[str]:
    """``/proc/PID/fdinfo/FD``, line by line.  *pid* may be ``"self"``."""
    return read_small(f"/proc/{pid}/fdinfo/{fd}").splitlines()
