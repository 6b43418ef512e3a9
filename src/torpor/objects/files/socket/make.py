"""Making sockets, in whichever network namespace of the tree."""

from __future__ import annotations

import _socket as socket
import os
import stat

from torpor.base.errors import RestoreError
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.sockets import SO_DOMAIN, Socket, get_int, pair
from torpor.kernel.syscall import syscall
from torpor.objects.files.model import OpenFile
from torpor.objects.files.networks import in_network
from torpor.objects.session import RestoreContext

_SOCK_PACKET = 10
_PINGS = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, _SOCK_PACKET)


def family_of(file: OpenFile) -> int:
    """The family of a socket, -1 for what is no socket."""
    if not stat.S_ISSOCK(file.stat.st_mode):
        return -1
    try:
        return get_int(file.fd, socket.SOL_SOCKET, SO_DOMAIN)
    except OSError:
        return -1  # a socket's file, opened with O_PATH


def new_socket(family: int, kind: int, protocol: int) -> Socket:
    """A socket in the network namespace that we are in.  Ping sockets are for certain groups only, root or not."""
    try:
        return Socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except PermissionError:
        low, high = map(int, read_small("/proc/sys/net/ipv4/ping_group_range").split())
        if protocol not in _PINGS or low > high:
            raise
    keep, own = 0xFFFFFFFF, os.getegid()
    syscall("setresgid", nr.setresgid, keep, low, keep)
    try:
        return Socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    finally:
        syscall("setresgid", nr.setresgid, keep, own, keep)


def make_socket(context: RestoreContext, family: int, kind: int, protocol: int, ns_id: int) -> Socket:
    """A new socket in the network namespace that the images number *ns_id*.

    RestoreError where the kernel has no such family or protocol.
    """
    check_type(kind)
    try:
        return in_network(context, ns_id, lambda: new_socket(family, kind, protocol))
    except OSError as error:
        raise RestoreError(
            f"a socket of family {family}, type {kind}, protocol {protocol} cannot be made: {error.strerror}",
            hint="this kernel lacks the protocol, or we the privilege",
        ) from error


def check_type(kind: int) -> None:
    """ImageError for what is no type of socket."""
    if kind not in _TYPES:
        raise ImageError(f"files.img: {kind} is no type of socket")


def make_pair(context: RestoreContext, kind: int, ns_id: int) -> tuple[Socket, Socket]:
    """Two connected unix sockets in that namespace."""
    check_type(kind)
    return in_network(context, ns_id, lambda: pair(kind))
