"""The network namespaces of a tree, as its sockets and other files see them: which one a file is in, how to be there.

A tree may have several: its root's, in which we are while its files are dumped and restored, those of other processes,
and such as nothing but a descriptor or a socket keeps (which CRIU does not know: their images are there all the same).
"""

from __future__ import annotations

import _socket as socket
import fcntl
import os
from collections.abc import Callable, Iterator

from torpor.base.fds import OwnedFd
from torpor.base.typed import TypeVar
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.sockets import Socket, net_namespace_of
from torpor.kernel.uapi.sockios import SIOCGSKNS
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext, DumpStage, RestoreContext

T = TypeVar("T")


class Networks:
    """The network namespaces of a tree that is dumped."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        #: By what tells them, as sockets have it: the number in the images, and a descriptor (none of where we are).
        self._known: dict[tuple[str, int], tuple[int, OwnedFd | None]] = {}
        self._met: dict[int, int] = {}
        self._home = os.stat("/proc/thread-self/ns/net").st_ino

    def id_of(self, file: OpenFile) -> int:
        """The image's number of the namespace that a socket is in; RefusedError for one that is not the tree's."""
        key = net_namespace_of(file.fd)
        if key not in self._known:
            self._learn()
        if key not in self._known:
            self._hold(file, OwnedFd(fcntl.ioctl(file.fd, SIOCGSKNS)))
            self._learn()
        return self._known[key][0]

    def check(self, file: OpenFile) -> None:
        """Refuse what ``id_of`` would, once all processes are known."""
        if net_namespace_of(file.fd) not in self._known:
            try:
                with OwnedFd(fcntl.ioctl(file.fd, SIOCGSKNS)) as namespace:
                    inode = os.fstat(namespace.fileno()).st_ino
            except PermissionError:
                return  # without CAP_NET_ADMIN only a dump can tell, by the namespaces of processes
            self._context.at(DumpStage.KNOWN, lambda: self._check_known(file, inode))

    def _check_known(self, file: OpenFile, inode: int) -> None:
        self._learn()
        if inode not in self._met:
            _check_unused(file, inode)

    def id_of_device(self, file: OpenFile) -> int:
        """The same for a tun device's file."""
        with OwnedFd(fcntl.ioctl(file.fd, SIOCGSKNS)) as namespace:
            return self.id_of_namespace(file, namespace.fileno())

    def id_of_namespace(self, file: OpenFile, fd: int) -> int:
        """The same for the namespace behind *fd*, which *file* has to do with."""
        inode = os.fstat(fd).st_ino
        if inode not in self._met:
            self._learn()
        if inode not in self._met:
            self._hold(file, OwnedFd(os.dup(fd)))
            self._learn()
        return self._met[inode]

    def each(self, work: Callable[[], T]) -> Iterator[tuple[int, T]]:
        """Do *work* in each of them; its number in the images, and what comes of it."""
        self._learn()
        for number, place in self._known.values():
            yield number, work() if place is None else inside(place.fileno(), CLONE_NEWNET, work)

    def inside(self, ident: int, work: Callable[[], T]) -> T:
        """Do *work* in the one of that number."""
        place = next(place for number, place in self._known.values() if number == ident)
        return work() if place is None else inside(place.fileno(), CLONE_NEWNET, work)

    def _learn(self) -> None:
        """Meet those of processes, and those that are held, that were not met yet."""
        for process in self._context.processes:
            if not process.is_zombie:
                try:
                    self._meet(process.ids.net_ns_id, f"/proc/{process.pid}/ns/net")
                except FileNotFoundError:
                    continue  # it has ended meanwhile
        for (flag, ident), fd in self._context.held.items():
            if flag == CLONE_NEWNET:
                self._meet(ident, f"/proc/self/fd/{fd.fileno()}")

    def _meet(self, ident: int, path: str) -> None:
        inode = os.stat(path).st_ino
        if inode in self._met:
            return
        self._met[inode] = ident
        if inode == self._home:
            self._known[_key_here()] = (ident, None)
            return
        place = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._known[inside(place.fileno(), CLONE_NEWNET, _key_here)] = (ident, place)

    def _hold(self, file: OpenFile, fd: OwnedFd) -> None:
        """Have the namespace behind *fd*, which no process of the tree is in, be dumped as well."""
        inode = os.fstat(fd.fileno()).st_ino
        _check_unused(file, inode)
        number = self._context.number_of_namespace("net", f"net:[{inode}]")
        self._context.held[CLONE_NEWNET, number] = fd


def _key_here() -> tuple[str, int]:
    with Socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        return net_namespace_of(own.fileno())


def _check_unused(file: OpenFile, inode: int) -> None:
    user = _user_of(inode)
    if user:
        raise file.refuse(
            f"net:[{inode}] is a network namespace outside of the tree, of {user}", hint="close it and try again"
        )


def _user_of(inode: int) -> str:
    """A process that is in the namespace, or the place where it is mounted; "" for one that nobody else uses."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino == inode:
                    return f"pid {name}"
            except OSError:
                continue
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            words = line.split()
            if words[3] == f"net:[{inode}]":
                return words[4]
    return ""


def in_network(context: RestoreContext, ident: int, work: Callable[[], T]) -> T:
    """Do *work* in the network namespace that the images number *ident*, which may not be the tree's main one."""
    place = context.networks.get(ident)
    return work() if place is None else inside(place, CLONE_NEWNET, work)
