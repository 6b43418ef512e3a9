"""The network namespace of a container that is on its way here, held back from before anything is in it until "go".

Its address is the one that the container still answers at elsewhere: were it known here as soon as Podman has made the
network, clients would come to where nobody is yet.  Podman has a program (netavark) put interfaces into the namespace
that it has made: that program waits (:mod:`torpor.kernel.exec_watch`) until the namespace is locked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import KernelError, TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid
from torpor.kernel import announce, nftables
from torpor.kernel.exec_watch import ExecWatch
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.procfs.stat import read_stat
from torpor.objects.files.socket import net_lock

#: Where engines have the namespaces that they make.
_NAMESPACES = "/run/netns"
_LOOK_EVERY_MS = 100


class HeldNetwork(Closing):
    """Holds back what *programs*, when a process below *ancestor* executes them, are going to set up.

    Where that cannot be watched for, a namespace is held when it is ``settle``d, and not before: then clients may be
    turned away for a moment.
    """

    def __init__(self, programs: Sequence[str], ancestor: int, ident: str) -> None:
        self.table = f"torpor-arrival-{ident}"[:31]
        self._ancestor = ancestor
        self._before = set(_names())
        self._held: dict[int, OwnedFd] = {}
        self._is_over = False
        self._watch: ExecWatch | None = None
        try:
            self._watch = ExecWatch(programs)
        except OSError as error:
            log.info(f"who sets up networks cannot be watched ({error.strerror})")
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self._watch is not None:
            self._thread.start()

    def _run(self) -> None:
        assert self._watch is not None
        while not self._is_over:
            self._watch.look(_LOOK_EVERY_MS, self._hold_new)

    def _hold_new(self, pid: Pid) -> None:
        """*pid* is about to set up a network: if it is ours, what is new is held."""
        if not _is_below(pid, self._ancestor):
            return
        for name in set(_names()) - self._before:
            try:
                self._hold(OwnedFd(os.open(f"{_NAMESPACES}/{name}", os.O_RDONLY | os.O_CLOEXEC)))
            except (TorporError, OSError) as error:
                log.warn(f"the network {name} is not held back: {error}")

    def _hold(self, network: OwnedFd) -> None:
        inode = os.fstat(network.fileno()).st_ino
        if inode in self._held:
            network.close()
            return
        hold(network.fileno(), self.table)
        self._held[inode] = network

    def settle(self, network: OwnedFd) -> None:
        """*network* is the one: it is held, if it was not yet, and any other is let go."""
        self._stop()
        wanted = os.fstat(network.fileno()).st_ino
        for inode in [each for each in self._held if each != wanted]:
            other = self._held.pop(inode)
            with other, suppress(TorporError, OSError):
                let_go(other.fileno(), self.table, is_told=False)
        self._hold(network)

    def _stop(self) -> None:
        self._is_over = True
        if self._watch is not None:
            self._thread.join()
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """What is held stays so: who restores lets it go, and a namespace that comes to nothing goes itself."""
        self._stop()
        while self._held:
            self._held.popitem()[1].close()


def hold(network: int, table: str) -> None:
    """Hold back all packets in the namespace behind *network*, and have it not answer for its addresses."""

    def work() -> None:
        with nftables.open_socket() as connection:
            nftables.commit(connection, net_lock.hold_all(table))

    inside(network, CLONE_NEWNET, work)


def is_held(network: int, table: str) -> bool:
    """Whether the namespace behind *network* is held back by *table*, ARP included."""

    def work() -> bool:
        with nftables.open_socket() as connection:
            return nftables.has_table(connection, table, nftables.NFPROTO_ARP)

    return inside(network, CLONE_NEWNET, work)


def let_go(network: int, table: str, *, is_told: bool = True) -> None:
    """Let all through again; with *is_told*, its neighbours are told of its addresses."""

    def work() -> None:
        with nftables.open_socket() as connection:
            # Each by itself: a restore that unlocks its connections takes one of them away, and one batch for both
            # would then undo neither.
            for message in net_lock.let_all_through(table):
                with suppress(FileNotFoundError, KernelError):
                    nftables.commit(connection, [message])
        if is_told:
            announce.announce()

    inside(network, CLONE_NEWNET, work)


def _names() -> list[str]:
    try:
        return os.listdir(_NAMESPACES)
    except OSError:
        return []


def _is_below(pid: Pid, ancestor: int) -> bool:
    for _ in range(64):
        if pid in (0, 1):
            return False
        if pid == ancestor:
            return True
        try:
            pid = Pid(read_stat(pid).ppid)
        except OSError:
            return False
    return False
