"""A worker in the control group of the container that it is to restore goes out of it first, where memory is short.

On cgroup v2 runc moves its worker, alone, into the container's new group (libcontainer's criuApplyCgroups).  What we
touch from then on counts for the container, and a container that nearly fills its ``memory.max`` would be killed while
it is restored.  What has been charged stays so wherever we go: so the same process begins anew outside, with the same
request still to be read.  Meanwhile a program that does nothing is in the group: systemd ends a scope without any.
"""

from __future__ import annotations

import _socket as socket
import os
import sys
from collections.abc import Iterable
from contextlib import suppress

from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images._registry import decode_errors
from torpor.kernel import errand, signal
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall

_ROOT = "/sys/fs/cgroup"
#: Tells the one who begins anew who is in which group.
_VARIABLE = "TORPOR_OUTSIDE_OF"
#: So much is free beside what is restored where we may as well stay: twice what we take.
_ENOUGH = 64 << 20
_LONGEST = 4 << 20
_LAST_FD = (1 << 32) - 1
_NOTHING = ["sleep", "1000000000"]


@dataclass(frozen=True, slots=True)
class Outside:
    """The *group* that was made for what is to be restored, and who is in it until that is."""

    group: str
    keeper: Pid

    def back(self) -> None:
        """Be in it again, for what is restored is not moved there.  OSError."""
        _enter(self.group)
        self.end()

    def end(self) -> None:
        """Nobody has to be in it for us any more."""
        with suppress(OSError):  # it may have been reaped already, and its number another's
            if not os.waitpid(self.keeper, os.WNOHANG)[0]:
                os.kill(self.keeper, signal.SIGKILL)
                os.waitpid(self.keeper, 0)


def group_of_ours() -> str:
    """The v2 control group in which we are alone, which so was made for what we are to restore; empty if there is none.

    runc names no root to us on cgroup v2.  The path in the images is that of the container that was checkpointed,
    which may still be there.
    """
    with suppress(OSError):
        path = _group_of("self")
        with open(f"{_ROOT}{path}/cgroup.procs", encoding="ascii") as members:
            if path != "/" and members.read().split() == [str(os.getpid())]:
                return path
    return ""


def taken() -> Outside | None:
    """What we were told by the one who we were, if we have begun anew."""
    pid, _, group = os.environ.pop(_VARIABLE, "").partition(":")
    return Outside(group, Pid(int(pid))) if pid.isdigit() else None


def leave(fd: int) -> None:
    """Begin anew outside of the group, if the request that comes by the socket *fd* is one for which that is of use.

    Returns if it is not, or if it cannot be done.
    """
    group = _tight(fd)
    if not group:
        return
    with suppress(OSError):
        place = _group_of(str(os.getppid()))
        if place.startswith("/..") or f"{place}/".startswith(f"{group}/"):
            return
        left = Outside(group, _start_keeper())
        try:
            _enter(place)
            try:
                _begin_anew(fd, left)
            finally:
                _enter(group)
        finally:
            os.environ.pop(_VARIABLE, None)
            os.set_inheritable(fd, False)
            left.end()


def _tight(fd: int) -> str:
    """The group, if a container is to be restored for which there is hardly room in it; empty if not."""
    connection = socket.socket(fileno=os.dup(fd))
    try:
        request = m.criu_req.FromString(connection.recv(_LONGEST, socket.MSG_PEEK))
        opts = request.opts
        if request.type != m.criu_req_type.RESTORE or not opts.rst_sibling:
            return ""
        group = group_of_ours()
        with open(f"{_ROOT}{group}/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        client = os.getppid()
        images = f"/proc/{client}/fd/{opts.images_dir_fd}" if opts.images_dir_fd >= 0 else opts.images_dir
        is_tight = group and limit.isdigit() and int(limit) - _size_of_pages(images) < _ENOUGH
        return group if is_tight else ""
    except OSError:
        return ""
    except decode_errors():
        return ""
    finally:
        connection.close()


def _size_of_pages(images: str) -> int:
    with os.scandir(images) as found:
        return sum(entry.stat().st_size for entry in found if entry.name.startswith("pages-"))


def _group_of(process: str) -> str:
    """Its v2 control group.  OSError."""
    with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
        return next((line[3:].rstrip("\n") for line in stream if line.startswith("0::")), "/")


def _enter(group: str) -> None:
    with open(f"{_ROOT}{group}/cgroup.procs", "w", encoding="ascii") as members:
        members.write(str(os.getpid()))


def _start_keeper() -> Pid:
    """Who is in the group for us.  OSError where there is no such program."""
    ours = os.getpid()
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        with errand.deaf() as mask:
            pid = os.fork()
            if not pid:
                try:
                    _become_keeper(ours, tell, mask)
                finally:
                    os._exit(1)
        os.close(tell)
        tell = -1
        failed = os.read(told, 1)
    finally:
        os.close(told)
        if tell >= 0:
            os.close(tell)
    if failed:
        os.waitpid(pid, 0)
        raise FileNotFoundError(_NOTHING[0])
    return Pid(pid)


def _become_keeper(parent: int, tell: int, mask: Iterable[int]) -> None:
    number = 3
    try:
        os.setsid()
        errand.go_with(parent)
        os.dup2(tell, number, inheritable=False)
        syscall("close_range", nr.close_range, number + 1, _LAST_FD, 0)
        null = os.open("/dev/null", os.O_RDWR)
        for standard in range(number):
            os.dup2(null, standard)
        errand.hear(mask)
        os.execvp(_NOTHING[0], _NOTHING)
    finally:
        os.write(number, b"-")


def _begin_anew(fd: int, left: Outside) -> None:
    """The same command line as the same process.  OSError; it does not return otherwise."""
    os.environ[_VARIABLE] = f"{left.keeper}:{left.group}"
    os.set_inheritable(fd, True)
    os.execv(sys.executable, sys.orig_argv)
