"""TCP connections that wait to be accepted, of a tree at some moment, whatever listeners it has then.

Kernel view
    In the table of sock_diag(7), what a listener has to read is how many connections wait.
Image
    None: a dump asks here which sockets it has to look at.
Restore
    None.
Limits
    Listeners of MPTCP, and those in other network namespaces than ours, are not in the table: their descriptors are
    asked (``tcp``).
"""

from __future__ import annotations

import _socket as socket
import os
from collections.abc import Iterable
from contextlib import suppress

from torpor.base.errors import KernelError
from torpor.base.ids import Pid
from torpor.kernel.sock_diag import read_inet
from torpor.objects.session import DumpContext

_LISTEN = 1 << 10


class Listening:
    """The inodes of all listeners in our network namespace, when this was made."""

    def __init__(self, context: DumpContext) -> None:
        self.inodes = frozenset(_read())


def waited_for(pids: Iterable[Pid]) -> bool:
    """Whether a connection waits for one of the processes *pids* to accept it, in our network namespace."""
    waiting = {f"socket:[{inode}]" for inode, n_waiting in _read().items() if n_waiting}
    return bool(waiting) and any(link in waiting for pid in pids for link in _links(pid))


def are_there() -> bool:
    """Whether anybody listens in our network namespace."""
    return bool(_read())


def _read() -> dict[int, int]:
    found = {}
    with suppress(KernelError, OSError):  # a kernel without
        for family in (socket.AF_INET, socket.AF_INET6):
            for inode, listener in read_inet(family, socket.IPPROTO_TCP, _LISTEN).items():
                found[inode] = listener.n_unread
    return found


def _links(pid: Pid) -> Iterable[str]:
    place = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(place):
            try:
                yield os.readlink(f"{place}/{number}")
            except FileNotFoundError:
                continue
    except (FileNotFoundError, ProcessLookupError):
        return
