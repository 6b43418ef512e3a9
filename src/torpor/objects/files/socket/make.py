"""Making sockets, and reaching those that are there: the only place that knows of network namespaces.

Limits
    Sockets of another network namespace than ours are refused.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.errors import RestoreError
from torpor.images.errors import ImageError
from torpor.objects.files.model import FileDump, FileRestore, OpenFile

SO_DOMAIN = 39
_SO_NETNS_COOKIE = 71
_SIOCGSKNS = 0x894C
_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, 10)


@contextmanager
def borrow(fd: int) -> Iterator[socket.socket]:
    """The descriptor *fd* as a socket object that does not own it."""
    # Family and type are given so that Python does not ask for them; they are of no account here.
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield connection
    finally:
        connection.detach()


def get_int(fd: int, level: int, option: int) -> int:
    """An integer option; OSError where the socket does not have it."""
    with borrow(fd) as connection:
        return connection.getsockopt(level, option)


def family_of(file: OpenFile) -> int:
    """The family of a socket, -1 for what is no socket."""
    return get_int(file.fd, socket.SOL_SOCKET, SO_DOMAIN) if stat.S_ISSOCK(file.stat.st_mode) else -1


class NetNamespaces:
    """The network namespaces of the sockets that are dumped."""

    def __init__(self, session: FileDump) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            self._own = _namespace_of(own.fileno())

    def id_of(self, file: OpenFile) -> int:
        """The image's number of the namespace that *file* is in; refuses one that is not ours."""
        if _namespace_of(file.fd) != self._own:
            raise file.refuse(
                "a socket of another network namespace", hint="sockets of a namespace of its own are not carried yet"
            )
        return file.process.ids.net_ns_id


def _namespace_of(fd: int) -> tuple[str, int]:
    with borrow(fd) as connection:
        try:
            cookie = connection.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return ("inode", _namespace_inode(fd))
    return ("cookie", int.from_bytes(cookie, "little"))


def _namespace_inode(fd: int) -> int:
    namespace = fcntl.ioctl(fd, _SIOCGSKNS)
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)


def make_socket(session: FileRestore, family: int, kind: int, protocol: int, ns_id: int) -> socket.socket:
    """A new socket in the network namespace that the images number *ns_id*.

    RestoreError where the kernel has no such family or protocol.
    """
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    try:
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise RestoreError(
            f"a socket of family {family}, type {kind}, protocol {protocol} cannot be made: {error.strerror}",
            hint="this kernel lacks the protocol, or we the privilege",
        ) from error


def make_pair(session: FileRestore, kind: int, ns_id: int) -> tuple[socket.socket, socket.socket]:
    """Two connected unix sockets in that namespace."""
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    return socket.socketpair(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
