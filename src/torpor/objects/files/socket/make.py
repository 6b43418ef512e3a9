"""Making sockets, in whichever network namespace of the tree."""

from __future__ import annotations

import _socket as socket
import stat

from torpor.base.errors import RestoreError
from torpor.images.errors import ImageError
from torpor.kernel.sockets import SO_DOMAIN, Socket, get_int, pair
from torpor.objects.files.model import FileRestore, OpenFile
from torpor.objects.files.networks import in_network

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


def make_socket(session: FileRestore, family: int, kind: int, protocol: int, ns_id: int) -> Socket:
    """A new socket in the network namespace that the images number *ns_id*.

    RestoreError where the kernel has no such family or protocol.
    """
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    try:
        return in_network(session, ns_id, lambda: Socket(family, kind | socket.SOCK_CLOEXEC, protocol))
    except OSError as error:
        raise RestoreError(
            f"a socket of family {family}, type {kind}, protocol {protocol} cannot be made: {error.strerror}",
            hint="this kernel lacks the protocol, or we the privilege",
        ) from error


def make_pair(session: FileRestore, kind: int, ns_id: int) -> tuple[Socket, Socket]:
    """Two connected unix sockets in that namespace."""
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")
    return in_network(session, ns_id, lambda: pair(kind))
