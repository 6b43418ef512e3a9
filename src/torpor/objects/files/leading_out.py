"""What of a running tree is open in other processes too: pipes whose other end is outside, sockets, counters.

Looked for only where a user is to be asked (``external_pipes`` of the policy off), by what /proc says of everybody.

Kernel view
    A pipe, a socket: the inode in the link of each descriptor; the link's mode tells the directions.  An eventfd: the
    id in its fdinfo.
Refused
    A pipe of which the tree has one end and others the other one: after a restore nobody would be there.
Warned of
    A socket, an eventfd, or both ends of a pipe that others have as well: those keep theirs, the restored ones are new.
Image
    None: what each of them is has its own kind.
Restore
    Where it is allowed, nobody is at the other end of such a pipe, unless ``--inherit-fd`` gives another one.
Limits
    An end that lies in a queue is nobody's; the dump itself looks into queues.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from torpor.base import log
from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.kernel.procfs.task import read_fdinfo_lines, read_fds
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext

_EVENTFD = "anon_inode:[eventfd]"
_READ, _WRITE = 0o400, 0o200
_NAMES = {_READ: "reads from", _WRITE: "writes to"}


@dataclass(slots=True)
class _Met:
    """Something with several holders: who was met first, what it is, the directions in which anybody has it."""

    first: str
    what: str
    access: int = 0
    outside: dict[Pid, int] = field(default_factory=dict)


class LeadingOut:
    """What the tree has that others might have."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._met: dict[str, _Met] = {}

    def add(self, process: DumpProcess, number: int, target: str) -> None:
        """Take note of a descriptor.  OSError where it is gone."""
        key, access = _look(process.pid, number, target)
        if key:
            first = f"fd {number} of {process.describe()}"
            self._met.setdefault(key, _Met(first, target.partition(":")[0])).access |= access

    def check(self) -> Iterator[RefusedError]:
        """The pipes that lead out, each with its holder; warnings for what is merely shared."""
        if not self._met:
            return
        self._look_outside()
        for key, met in self._met.items():
            missing = (_READ | _WRITE) & ~met.access
            ends = {pid: access for pid, access in met.outside.items() if access & missing}
            if met.what == "pipe" and ends:
                pid = min(ends)
                yield RefusedError(
                    f"{met.first} {_NAMES[met.access]} {key}, whose other end is outside of the tree: "
                    f"pid {pid} ({_name(pid)}) has it",
                    hint="--external-pipes goes on without: nobody will be at the other end after the restore, unless "
                    f"torpor restore --inherit-fd fd[N]:{key} gives another",
                )
            elif met.outside:
                pid = min(met.outside)
                what = "eventfd" if met.what == "anon_inode" else met.what
                log.warn(
                    f"{met.first}: pid {pid} ({_name(pid)}) outside of the tree has the same {what}, and will not "
                    "share the one that is restored"
                )

    def _look_outside(self) -> None:
        inside = {process.pid for process in self._context.processes} | {os.getpid()}
        with_counters = any(met.what == "anon_inode" for met in self._met.values())
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in inside:
                self._look_at(Pid(int(name)), with_counters=with_counters)

    def _look_at(self, pid: Pid, *, with_counters: bool) -> None:
        try:
            numbers = read_fds(pid)
        except OSError:
            return  # it has ended, or is not ours to look at
        for number in numbers:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{number}")
                if not target.startswith(("pipe:", "socket:")) and not (with_counters and target == _EVENTFD):
                    continue
                key, access = _look(pid, number, target)
            except OSError:
                continue
            if key in self._met:
                outside = self._met[key].outside
                outside[pid] = outside.get(pid, 0) | access


def _look(pid: Pid, number: int, target: str) -> tuple[str, int]:
    """What tells the thing behind a descriptor from others (empty: it is of no kind looked for), and the directions."""
    if target.startswith("pipe:"):
        return target, os.lstat(f"/proc/{pid}/fd/{number}").st_mode & (_READ | _WRITE)
    if target.startswith("socket:"):
        return target, _READ | _WRITE
    if target == _EVENTFD:
        lines = read_fdinfo_lines(pid, number)
        return next((line for line in lines if line.startswith("eventfd-id:")), ""), _READ | _WRITE
    return "", 0


def _name(pid: Pid) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "?"
