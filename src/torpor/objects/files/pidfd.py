"""pidfds: a process, or a thread, behind a descriptor.

Kernel view
    ``Pid`` and ``NSpid`` in fdinfo (-1: it is dead and has been waited for).  Before Linux 6.9 an anonymous inode, from
    then on one of pidfs, whose number tells dead ones apart.  PIDFD_GET_INFO gives the exit status of the dead (6.15).
Image
    ``pidfd_entry``; ``torpor_exit_status`` for the dead.
Restore
    ``pidfd_open`` on the restored task.  A dead one is opened on a child that ends in the same way and is waited for.
Limits
    Tasks outside of the tree are refused: after the restore there is no telling who they are.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.typed import NoReturn
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import errand, signal
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import children_in
from torpor.kernel.syscall import syscall
from torpor.objects.files import fown
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_LINKS = ("anon_inode:[pidfd]", "pidfd:")
_PIDFD_THREAD = os.O_EXCL
_PIDFD_NONBLOCK = os.O_NONBLOCK
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8
# struct pidfd_info, first version: mask, cgroup id, eleven ids, exit code.
_info = struct.Struct("QQ11Ii")
_DEAD = -1


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target.startswith(_LINKS)


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.pidfd``: which process, or how it ended.  RefusedError for one outside of the tree."""
    pidfd = entry.pidfd
    pidfd.id, pidfd.flags = entry.id, file.flags & ~os.O_ACCMODE
    pidfd.ino = file.stat.st_ino & 0xFFFFFFFF
    fown.fill(pidfd.fown, file)
    pid = int(file.info("Pid"))
    if pid == _DEAD:
        pidfd.nspid = _DEAD
        status = _exit_status(file.fd)
        if status is not None:
            pidfd.torpor_exit_status = status
        return
    pidfd.nspid = int(file.info("NSpid").split()[-1])
    if pid not in _tasks_of(context, bool(pidfd.flags & _PIDFD_THREAD)):
        raise file.refuse(
            f"it is a pidfd of pid {pid}, which is not part of the tree", hint="checkpoint both together, or close it"
        )


def _tasks_of(context: DumpContext, threads: bool) -> set[Pid]:
    if threads:
        return {thread.tid for process in context.processes for thread in process.threads}
    return {process.pid for process in context.processes}


def _exit_status(fd: int) -> int | None:
    """The wait status, where the kernel has kept it."""
    request = _info.pack(_PIDFD_INFO_EXIT, *([0] * 13))
    try:
        mask, *_, status = _info.unpack(fcntl.ioctl(fd, _PIDFD_GET_INFO, request))
    except OSError:
        return None
    return status & 0xFFFF if mask & _PIDFD_INFO_EXIT else None


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Open it; for a dead task all descriptions of that task at once."""
    pidfd = entry.pidfd
    if pidfd.nspid == _DEAD:
        return _open_dead(entry, context)
    return _open(_find(entry, context), pidfd.flags)


def _open(pid: Pid, flags: int) -> int:
    return syscall("pidfd_open", nr.pidfd_open, pid, flags & (_PIDFD_NONBLOCK | _PIDFD_THREAD))


def _find(entry: m.file_entry, context: RestoreContext) -> Pid:
    """Our number for the task."""
    wanted = entry.pidfd.nspid
    for process in context.processes:
        if process.ns_pid == wanted:
            return process.pid
        if entry.pidfd.flags & _PIDFD_THREAD:
            for thread in process.threads:
                if thread.ns_tid == wanted:
                    return thread.runner.tid
    raise ImageError(f"files.img: pidfd {entry.id} is of pid {wanted}, which is not in the tree")


def _open_dead(entry: m.file_entry, context: RestoreContext) -> int:
    """Open every pidfd of the same dead task; the others are kept with the files."""
    alike = [
        other
        for other in context.files.entries.values()
        if other.HasField("pidfd") and other.pidfd.nspid == _DEAD and other.pidfd.ino == entry.pidfd.ino
    ]
    # In the tree's own pid namespace: from another one a pidfd can hardly be used.
    with children_in(context.processes[0].pid), _dying(entry.pidfd.torpor_exit_status) as child:
        own = -1
        for other in alike:
            fd = _open(child, other.pidfd.flags)
            if other.id == entry.id:
                own = fd
            else:
                context.files.adopt(other.id, fd)
    return own


@contextmanager
def _dying(status: int) -> Iterator[Pid]:
    """A child that ends with *status* at the end of the block."""
    waiting, go = os.pipe2(os.O_CLOEXEC)
    child = 0
    with OwnedFd(waiting), OwnedFd(go) as last:
        try:
            with errand.deaf():
                child = os.fork()
                if not child:
                    _end(waiting, go, status)
            yield Pid(child)
        finally:
            last.close()
            if child:
                os.waitpid(child, 0)


def _end(waiting: int, go: int, status: int) -> NoReturn:
    try:
        os.close(go)
        os.read(waiting, 1)
        if os.WIFSIGNALED(status):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            number = os.WTERMSIG(status)
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
            os.kill(os.getpid(), number)
    finally:
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)


KIND = FileKind("pidfd", m.fd_types.PIDFD, matches, dump, restore)
