"""netlink(7) sockets.

Kernel view
    getsockname(2), getpeername(2): port and groups; NETLINK_LIST_MEMBERSHIPS has groups above 32 too.
Image
    ``netlink_sk_entry``; ``state`` is 1 for a connected one, else what a new socket's table says (7).
Restore
    bind(2), with another port where that one is taken, as few programs care.
Limits
    Messages that wait to be read are refused: they speak of a moment that is over.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.uapi.socket import SO_PROTOCOL, SO_TYPE, SOL_NETLINK
from torpor.objects.files import fown
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket import filters, options
from torpor.objects.files.socket.finish import finish
from torpor.objects.files.socket.make import family_of, make_socket
from torpor.objects.files.socket.option_tables import Shape
from torpor.objects.session import DumpContext, RestoreContext

_CONNECTED, _UNCONNECTED = 1, 7
_ADD_MEMBERSHIP, _LIST_MEMBERSHIPS = 1, 9
_MAX_GROUPS = 1024


def matches(file: OpenFile) -> bool:
    """Whether it is a socket of AF_NETLINK."""
    return family_of(file) == socket.AF_NETLINK


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.nlsk``: protocol, port, groups and peer.  RefusedError where messages wait to be read."""
    sk = entry.nlsk
    sk.id, sk.ino, sk.flags = entry.id, file.stat.st_ino & 0xFFFFFFFF, file.flags
    sk.ns_id = context.part(Networks).id_of(file)
    fown.fill(sk.fown, file)
    with Borrowed(file.fd, socket.AF_NETLINK) as connection:
        _check_empty(file, connection)
        sk.protocol = connection.getsockopt(socket.SOL_SOCKET, SO_PROTOCOL)
        kind = connection.getsockopt(socket.SOL_SOCKET, SO_TYPE)
        if kind != socket.SOCK_RAW:
            sk.torpor_type = kind
        sk.portid = connection.getsockname()[0]
        sk.groups.extend(_groups(connection))
        peer, mask = connection.getpeername()
        sk.dst_portid, sk.dst_group = peer, (mask & -mask).bit_length()
        sk.state = _CONNECTED if peer or mask else _UNCONNECTED
    options.dump(file, Shape(socket.AF_NETLINK, kind, sk.protocol), sk.opts, context)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse a filter that cannot be read."""
    with Borrowed(file.fd) as connection:
        filters.count(file, connection)


def _check_empty(file: OpenFile, connection: Socket) -> None:
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        log.warn(f"{file.describe()}: an overflow that it has not seen is forgotten")
        return
    raise file.refuse("a netlink socket with unread messages", hint="try again when they are read")


def _groups(connection: Socket) -> list[int]:
    """The words of its groups, without empty ones at the end."""
    data = connection.getsockopt(SOL_NETLINK, _LIST_MEMBERSHIPS, _MAX_GROUPS // 8)
    words = list(struct.unpack(f"={len(data) // 4}I", data[: len(data) & ~3]))
    while words and not words[-1]:
        words.pop()
    return words


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Make, bind, join, connect."""
    sk = entry.nlsk
    what = f"netlink socket {entry.id}"
    if len(sk.groups) * 32 > _MAX_GROUPS or sk.dst_group > 32:
        raise ImageError(f"files.img: {what} has impossible groups")
    kind = sk.torpor_type or socket.SOCK_RAW
    if kind not in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        raise ImageError(f"files.img: {what}: type {kind}")
    connection = make_socket(context, socket.AF_NETLINK, kind, sk.protocol, sk.ns_id)
    try:
        if sk.portid or sk.groups:
            _bind(connection, sk, what)
        for group in range(32, len(sk.groups) * 32):
            if sk.groups[group // 32] >> group % 32 & 1:
                connection.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group + 1)
        if sk.state == _CONNECTED:
            connection.connect((sk.dst_portid, 1 << (sk.dst_group - 1) if sk.dst_group else 0))
        finish(connection, sk, what, context.idmaps)
        return connection.detach()
    except OSError as error:
        raise RestoreError(f"{what} of protocol {sk.protocol}: {error.strerror}") from error
    finally:
        connection.close()


def _bind(connection: Socket, sk: m.netlink_sk_entry, what: str) -> None:
    groups = sk.groups[0] if sk.groups else 0
    try:
        connection.bind((sk.portid, groups))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        connection.bind((0, groups))
        log.warn(f"{what}: port {sk.portid} is taken, it has {connection.getsockname()[0]}")


KIND = FileKind("netlink socket", m.fd_types.NETLINKSK, matches, dump, restore, check=check)
