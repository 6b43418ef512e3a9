"""Sysctls by which a user or pid namespace confines its processes.

Kernel view
    ``/proc/sys/user`` shows what the user namespace of the process that looks may have (a new one: no limits);
    ``/proc/sys/vm/memfd_noexec`` (6.3) is that of its pid namespace, which begins with its parent's.
Image
    ``task_core_entry.torpor_confined`` of the tree's root.  Such images have a version that other readers refuse.
Restore
    Last of all that is made: the same sysctls.
Limits
    What namespaces between ours and the tree's allow is not asked for.  ``kernel/pid_max`` (of a pid namespace since
    6.14) is not carried: a warning.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import errand, signal
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWPID, CLONE_NEWUSER, setns
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import PR_SET_DUMPABLE
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.session import DumpContext

_SYSCTL = "/proc/sys"
_USER, _NOEXEC, _PID_MAX = "user", "vm/memfd_noexec", "kernel/pid_max"
_NONE = (1 << 31) - 1
#: What a pid namespace begins with (include/linux/threads.h).
_PID_MAX_LIMIT = 1 << 22
#: How long an answer from there may take.
_PATIENCE_S = 10.0


class Seen:
    """Of a dump: name and value of each, as it was before the tree was stopped."""

    def __init__(self, context: DumpContext) -> None:
        self.values: dict[str, int] = {}


def look(context: DumpContext, pidfd: int, flags: int) -> None:
    """Ask in those of *flags* (a user and a pid namespace) that the process behind *pidfd* does not share with us."""
    told = dict(line.split() for line in _there(pidfd, flags, lambda: _told(flags)).splitlines())
    found = context.part(Seen).values
    for name, value in told.items():
        if name == _PID_MAX:
            if int(value) not in (_PID_MAX_LIMIT, _read(_PID_MAX)):
                log.warn(f"{name} is {value} in the tree's pid namespace, which is not carried")
        elif int(value) != (_read(name) if name == _NOEXEC else _NONE):
            found[name] = int(value)


def _told(flags: int) -> str:
    names = [f"{_USER}/{name}" for name in os.listdir(f"{_SYSCTL}/{_USER}")] if flags & CLONE_NEWUSER else []
    if flags & CLONE_NEWPID:
        names += [_NOEXEC, _PID_MAX]
    return "".join(f"{name} {value}\n" for name in names if (value := _read(name)) is not None)


def _read(name: str) -> int | None:
    try:
        with open(f"{_SYSCTL}/{name}", encoding="ascii") as stream:
            return int(stream.read())
    except OSError:
        return None  # this kernel has none


def dump(root: DumpProcess, context: DumpContext) -> None:
    """Note them with the tree's root."""
    for name, value in context.part(Seen).values.items():
        root.core.tc.torpor_confined.add(name=name, value=value)


def restore(root: RestoreProcess, pidfd: int, flags: int) -> None:
    """Set them in the namespaces *flags* that were made for the tree.  RestoreError: it would be less confined."""
    found = [entry for entry in root.core.tc.torpor_confined if is_of(entry, flags)]
    if not found:
        return
    needed = sum(flag for flag in (CLONE_NEWUSER, CLONE_NEWPID) if any(_flag(entry) == flag for entry in found))
    failed = _there(pidfd, needed, lambda: "".join(map(_set, found)) + ".")
    if failed != ".":
        raise RestoreError(
            "the tree's namespaces do not confine it as they did: " + (failed.strip(".") or "they cannot be entered"),
            hint="this needs CAP_SYS_ADMIN and CAP_SYS_RESOURCE there, and a kernel that has these sysctls",
        )


def _flag(entry: m.torpor_sysctl) -> int:
    return CLONE_NEWPID if entry.name == _NOEXEC else CLONE_NEWUSER


def is_of(entry: m.torpor_sysctl, flags: int) -> bool:
    """Whether it is of a namespace among *flags*; ImageError for what confines no namespace."""
    kind, _, name = entry.name.partition("/")
    if entry.name != _NOEXEC and not (kind == _USER and name.startswith("max_") and name.isidentifier()):
        raise ImageError(f"core image: torpor_confined: {entry.name!r} is none that a namespace is confined by")
    return bool(_flag(entry) & flags)


def _set(entry: m.torpor_sysctl) -> str:
    try:
        with open(f"{_SYSCTL}/{entry.name}", "w", encoding="ascii") as stream:
            stream.write(str(entry.value))
    except OSError as error:
        return f"{entry.name} cannot be {entry.value} ({error.strerror}) "
    return ""


def _there(pidfd: int, flags: int, work: Callable[[], str]) -> str:
    """What *work* gives in the namespaces *flags* of the process behind *pidfd*; nothing where none can get there.

    By a child, for a process with several threads enters no user namespace; and its child, for a pid namespace.
    """
    us, told = os.getpid(), b""
    read, written = os.pipe2(os.O_CLOEXEC)
    with OwnedFd(read), OwnedFd(written) as writer:

        def go() -> None:
            _go(pidfd, flags, work, written, us)

        # Who goes into a pid namespace is to be reaped by its parent, which therefore ends in good order.
        with errand.sent(go, signal.SIGTERM if flags & CLONE_NEWPID else signal.SIGKILL):
            writer.close()
            # Whoever lives there may have stopped the child that is there.
            while select.select([read], [], [], _PATIENCE_S)[0] and (more := os.read(read, 1 << 16)):
                told += more
    return told.decode(errors="replace")


def _go(pidfd: int, flags: int, work: Callable[[], str], writer: int, parent: int) -> None:
    # Who has rights in the user namespace, whose member this becomes, is not to trace it: it has all of our files.
    syscall("prctl(PR_SET_DUMPABLE)", nr.prctl, PR_SET_DUMPABLE, 0)
    setns(pidfd, flags)
    if not flags & CLONE_NEWPID:
        errand.go_with(parent)
    else:
        errand.go_with(parent, signal.SIGTERM)
        if inner := os.fork():
            os.close(writer)
            errand.keep(inner)
            return
        errand.go_with(0)
    os.write(writer, work().encode())
