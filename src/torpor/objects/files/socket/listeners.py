"""TCP connections that wait to be accepted, or have been, of a tree at some moment, whatever listeners it has then.

Kernel view
    In the table of sock_diag(7), what a listener has to read is how many connections wait.  The kernel tells of those
    at one port, or to one, without going through its answer here.
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
from collections.abc import Iterable, Set
from contextlib import suppress

from torpor.base.errors import KernelError
from torpor.base.ids import Pid
from torpor.kernel.sock_diag import read_inet
from torpor.objects.session import DumpContext

_SOCKET = "socket:["
_LISTEN = 1 << 10
#: Neither listening nor closed, and with a socket: not SYN_RECV (of either kind), TIME_WAIT.
_CONNECTED = 0xFFFFFFFF & ~(_LISTEN | 1 << 7 | 1 << 3 | 1 << 12 | 1 << 6)


class Listening:
    """The inodes of all listeners in our network namespace, when this was made."""

    def __init__(self, context: DumpContext) -> None:
        self.inodes = frozenset(_read())


def n_waiting(pids: Iterable[Pid]) -> int:
    """How many connections wait for one of the processes *pids* to accept them, in our network namespace."""
    waiting = {f"{_SOCKET}{inode}]": n for inode, n in _read().items() if n}
    held = {link for pid in pids for link in _links(pid)} if waiting else ()
    return sum(waiting[name] for name in waiting.keys() & held)


def are_connected(pids: Iterable[Pid], ports: Iterable[int], peer_ports: Iterable[int]) -> bool:
    """Whether one of the processes *pids* has a TCP connection at one of *ports*, or to one of *peer_ports*.

    0 is any port: then the kernel tells of all connections of our network namespace.
    """
    found: set[int] = set()
    with suppress(KernelError, OSError):  # a kernel without
        for family in (socket.AF_INET, socket.AF_INET6):
            for port in ports:
                found.update(read_inet(family, socket.IPPROTO_TCP, _CONNECTED, port=port))
            for port in peer_ports:
                found.update(read_inet(family, socket.IPPROTO_TCP, _CONNECTED, peer_port=port))
    return _have(pids, found)


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


def have_other_sockets(pids: Iterable[Pid], known: Set[int]) -> bool:
    """Whether one of the processes *pids* has a socket whose inode is not among the *known* ones."""
    names = {f"{_SOCKET}{inode}]" for inode in known}
    return any(link.startswith(_SOCKET) and link not in names for pid in pids for link in _links(pid))


def _have(pids: Iterable[Pid], inodes: Set[int]) -> bool:
    """Whether one of *pids* has a socket with one of *inodes*."""
    names = {f"{_SOCKET}{inode}]" for inode in inodes}
    return bool(names) and any(link in names for pid in pids for link in _links(pid))


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
