"""Making sockets, and telling where they are: the only place that knows of network namespaces.

Limits
    Sockets of another network namespace than the tree's are refused.
"""

from __future__ import annotations

import _socket as socket
import stat

from torpor.base.errors import RestoreError
from torpor.images.errors import ImageError
from torpor.kernel.sockets import SO_DOMAIN, Socket, get_int, net_namespace_of, pair
from torpor.objects.files.model import FileDump, FileRestore, OpenFile

_SOCK_PACKET = 10
_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, _SOCK_PACKET)


def family_of(file: OpenFile) -> int:
    """The family of a socket, -1 for what is no socket."""
    if not stat.S_ISSOCK(file.stat.st_mode):
        return -1
    try:
        return get_int(file.fd, socket.SOL_SOCKET, SO_DOMAIN)
    except OSError:
        return -1  # a socket's file, opened with O_PATH


class NetNamespaces:
    """The network namespaces of the sockets that are dumped."""

    def __init__(self, session: FileDump) -> None:
        # We are in the tree's own namespace while we dump it.
        with Socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            self._own = net_namespace_of(own.fileno())

    def id_of(self, file: OpenFile) -> int:
        """The image's number of the namespace that *file* is in; refuses one that is not the tree's."""
        if net_namespace_of(file.fd) != self._own:
            raise file.refuse("a socket of another network namespace than its process's", hint="close it and try again")
        return file.process.ids.net_ns_id


def make_socket(session: FileRestore, family: int, kind: int, protocol: int, ns_id: int) -> Socket:
    """A new socket in the network namespace that the images number *ns_id*.

    RestoreError where the kernel has no such family or protocol.
    """
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    try:
        return Socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise RestoreError(
            f"a socket of family {family}, type {kind}, protocol {protocol} cannot be made: {error.strerror}",
            hint="this kernel lacks the protocol, or we the privilege",
        ) from error


def make_pair(session: FileRestore, kind: int, ns_id: int) -> tuple[Socket, Socket]:
    """Two connected unix sockets in that namespace."""
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    return pair(kind)
