"""packet(7) sockets, with their rings.

Kernel view
    The table of sock_diag(7): interface, protocol, options, memberships, rings, fanout group.
Image
    ``packet_sock_entry``; a mapping of a ring has the socket's file id (VMA_AREA_SOCKET).
Restore
    The ring is there before memory is mapped: whoever maps it opens the socket.
Limits
    Packets that wait, in a queue or a ring, are dropped, as an interface drops them.  A ring that is mapped, but whose
    socket nobody has open any more, is refused.
"""

from __future__ import annotations

import _socket as socket
import ctypes
import struct

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import sock_diag
from torpor.kernel.arch import nr
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.socket import SOL_PACKET
from torpor.objects.files import fown
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket import filters, options
from torpor.objects.files.socket.finish import finish
from torpor.objects.files.socket.make import family_of, make_socket
from torpor.objects.files.socket.option_tables import Shape
from torpor.objects.session import DumpContext, RestoreContext

_ADD_MEMBERSHIP, _RX_RING, _TX_RING, _FANOUT = 1, 5, 13, 18
_SOCK_PACKET = 10
_NUMBERS = (("version", 10), ("reserve", 12), ("timestamp", 17), ("copy_thresh", 7))
_SWITCHES = (("aux_data", 8, 2), ("orig_dev", 9, 4), ("vnet_hdr", 15, 8), ("loss", 14, 16))
_RING = ("block_size", "block_nr", "frame_size", "frame_nr", "retire_tmo", "sizeof_priv", "features")
_MAX_ADDRESS = 32
_MAX_RING = 1 << 30


class Table:
    """The packet sockets of the tree's network namespace, read once."""

    def __init__(self, context: DumpContext) -> None:
        self.sockets = sock_diag.read_packet()


def matches(file: OpenFile) -> bool:
    """Whether it is a socket of AF_PACKET."""
    return family_of(file) == socket.AF_PACKET


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.psk`` with what the kernel's table has of the socket, and its options.

    RefusedError where the table has no such socket.
    """
    sk = entry.psk
    sk.id, sk.flags = entry.id, file.flags
    sk.ns_id = context.part(Networks).id_of(file)
    fown.fill(sk.fown, file)
    row = context.part(Table).sockets.get(file.stat.st_ino)
    if row is None:
        raise file.refuse("a packet socket that the kernel's table does not have", hint="try again")
    sk.type, sk.protocol = row.type, socket.htons(row.protocol)
    sk.ifindex, sk.version, sk.reserve, sk.copy_thresh, sk.timestamp, flags = row.info
    for name, _, bit in _SWITCHES:
        setattr(sk, name, bool(flags & bit))
    for index, count, kind, address in row.memberships:
        for _ in range(count):
            sk.mclist.add(index=index, type=kind, addr=address)
    for ring, values in ((sk.rx_ring, row.rx_ring), (sk.tx_ring, row.tx_ring)):
        for name, value in zip(_RING, values, strict=False):
            setattr(ring, name, value)
    if row.fanout is not None:
        sk.fanout = row.fanout
    options.dump(file, Shape(socket.AF_PACKET, row.type, 0), sk.opts, context)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse one of another network namespace."""
    context.part(Networks).check(file)
    with Borrowed(file.fd) as connection:
        filters.count(file, connection)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Make, bind, join, and set up rings."""
    sk = entry.psk
    what = f"packet socket {entry.id}"
    connection = make_socket(context, socket.AF_PACKET, sk.type, sk.protocol, sk.ns_id)
    try:
        name = _interface(sk.ifindex, what)
        if sk.type == _SOCK_PACKET:
            if name:
                _bind_by_name(connection, name)
        else:
            if name:
                connection.bind((name, 0))
            _set_up(connection, sk, what)
        finish(connection, sk, what, context.idmaps)
        return connection.detach()
    except OSError as error:
        raise RestoreError(f"{what}: {error.strerror}") from error
    finally:
        connection.close()


def _interface(index: int, what: str) -> str:
    if index in (0, 0xFFFFFFFF):
        return ""
    try:
        return socket.if_indextoname(index)
    except OSError as error:
        raise RestoreError(f"{what}: there is no interface of index {index}") from error


def _bind_by_name(connection: Socket, name: str) -> None:
    """Sockets of the old type SOCK_PACKET take nothing but a ``struct sockaddr`` with the interface's name."""
    address = ctypes.create_string_buffer(struct.pack("=H14s", socket.AF_PACKET, name.encode()[:13]), 16)
    syscall("bind", nr.bind, connection.fileno(), ctypes.addressof(address), 16)


def _set_up(connection: Socket, sk: m.packet_sock_entry, what: str) -> None:
    for name, option in _NUMBERS:
        connection.setsockopt(SOL_PACKET, option, struct.pack("I", getattr(sk, name)))
    for name, option, _ in _SWITCHES:
        if getattr(sk, name):
            connection.setsockopt(SOL_PACKET, option, 1)
    options.restore_early(connection, sk.opts, SOL_PACKET, what)
    for member in sk.mclist:
        if len(member.addr) > _MAX_ADDRESS:
            raise ImageError(f"files.img: {what}: an address of {len(member.addr)} bytes")
        request = struct.pack("=IHH32s", member.index, member.type, len(member.addr), member.addr)
        connection.setsockopt(SOL_PACKET, _ADD_MEMBERSHIP, request)
    for name, option in (("rx_ring", _RX_RING), ("tx_ring", _TX_RING)):
        if sk.HasField(name):  # type: ignore[arg-type]
            ring = getattr(sk, name)
            if ring.block_size * ring.block_nr > _MAX_RING:
                raise ImageError(f"files.img: {what}: a ring of {ring.block_nr} blocks of {ring.block_size} bytes")
            connection.setsockopt(SOL_PACKET, option, struct.pack("7I", *(getattr(ring, field) for field in _RING)))
    if sk.HasField("fanout"):
        connection.setsockopt(SOL_PACKET, _FANOUT, struct.pack("I", sk.fanout))


KIND = FileKind("packet socket", m.fd_types.PACKETSK, matches, dump, restore, check=check)
