"""namespaces(7): unshare(2), setns(2), and work done inside another task's namespaces.

setns(2) changes the calling *thread* only, so a short-lived thread of ours can look into, or work in, the uts, ipc,
net and mount namespaces of another process while the rest of us stays where it is.  A pid namespace cannot be entered
this way: it concerns children only.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.typed import TypeVar
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.sched import CLONE_FS

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def unshare(flags: int) -> None:
    """unshare(2): the calling thread gets new ones of what the CLONE_* in *flags* name.  OSError."""
    syscall("unshare", nr.unshare, flags)


def setns(fd: int, flags: int) -> None:
    """setns(2) by a namespace descriptor, or (since 5.8) a pidfd with several flags."""
    syscall("setns", nr.setns, fd, flags)


def inside(pidfd: int, flags: int, work: Callable[[], T]) -> T:
    """Do *work* in the namespaces *flags* of the process behind *pidfd*, in a thread made for it; its result or error.

    With CLONE_NEWNS the thread's root and working directory are the root of that mount namespace.
    """

    def enter() -> T:
        if flags & CLONE_NEWNS:
            # A thread that shares its root directory with others may not change mount namespaces.
            unshare(CLONE_FS)
        setns(pidfd, flags)
        return work()

    return isolated(enter)


@contextmanager
def children_in(pid: Pid) -> Iterator[None]:
    """Processes that this thread forks meanwhile are born into the pid namespace of *pid*."""
    with OwnedFd(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)) as theirs:
        with births_in(theirs.fileno()):
            yield


@contextmanager
def network_of(pid: Pid) -> Iterator[None]:
    """Be in the network namespace of *pid*, this thread and those that it starts; nothing where that is ours too."""
    place = f"/proc/{pid}/ns/net"
    if not os.path.exists(place) or os.readlink(place) == os.readlink("/proc/self/ns/net"):
        yield
        return
    with OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as ours:
        with OwnedFd(os.open(place, os.O_RDONLY | os.O_CLOEXEC)) as theirs:
            setns(theirs.fileno(), CLONE_NEWNET)
        try:
            yield
        finally:
            setns(ours.fileno(), CLONE_NEWNET)


@contextmanager
def births_in(fd: int) -> Iterator[None]:
    """The same for the pid namespace behind *fd*."""
    with OwnedFd(os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)) as ours:
        setns(fd, CLONE_NEWPID)
        try:
            yield
        finally:
            setns(ours.fileno(), CLONE_NEWPID)


def isolated(work: Callable[[], T]) -> T:
    """Do *work* in a thread made for it, wait for it, and give its result or raise its error.

    Whatever it does to its own namespaces, directories or credentials by system calls ends with it.
    """
    done = _thread.allocate_lock()
    done.acquire()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()
    if errors:
        raise errors[0]
    return results[0]
