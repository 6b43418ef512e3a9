"""Datagrams that wait to be read in UDP and UDP-Lite sockets.

Kernel view
    recvmsg(2) with MSG_PEEK, which SO_PEEK_OFF makes go on behind what was seen; the address that a datagram was sent
    to shows where the socket asks for it (IP_PKTINFO).
Image
    ``sk_packet_entry`` with ``torpor_from`` (packed address and port) and ``torpor_to`` (address).  Other readers drop
    them, as CRIU drops what waits.
Restore
    Made by us with their sender's address and sent to the socket by the loopback interface (``kernel.packets``).
Limits
    Dropped with a warning: those of sockets that are bound to an interface or share their port, which others might get
    instead, and where the loopback interface is down.  Times and TTLs of arrival are new.
"""

from __future__ import annotations

import _socket as socket
import select

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.kernel import packets
from torpor.kernel.sockets import Borrowed, Socket
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import addresses, options, tcp_fin
from torpor.objects.files.socket.queues import Queues, peeking
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

_ROOM = 1 << 16
_CONTROL_ROOM = 512
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_PKTINFO, _V6_PKTINFO = (socket.IPPROTO_IP, 8), (socket.IPPROTO_IPV6, 50)
_MAX_MESSAGES = 1 << 16
_PORT = 2
_LOOPBACK = {4: socket.inet_aton("127.0.0.1"), 16: bytes(15) + b"\1"}


def events_of(fd: int) -> int:
    """What poll(2) tells: POLLIN if anything waits, be it an empty datagram, POLLERR if an error does."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return sum(events for _, events in poller.poll(0))


def dump(file: OpenFile, file_id: int, sk: m.inet_sk_entry, context: DumpContext) -> None:
    """Write the datagrams that wait in the socket as entries of *file_id*, and leave them in it."""
    image = context.image("SK_QUEUES")
    with Borrowed(file.fd, sk.family) as connection, peeking(connection, context):
        for _ in range(_MAX_MESSAGES):
            try:
                data, control, _, sender = connection.recvmsg(_ROOM, _CONTROL_ROOM, _PEEK)
            except BlockingIOError:
                return
            except OSError as error:
                # An error that waits (ICMP) is told once, here instead of there; what is behind it comes next.
                log.debug(f"{file.describe()}: {error.strerror}")
                continue
            packet = m.sk_packet_entry(id_for=file_id, length=len(data), torpor_from=_pack(sender, sk.family))
            for level, kind, content in control:
                if (level, kind) == _PKTINFO:
                    packet.torpor_to = content[8:12]
                elif (level, kind) == _V6_PKTINFO:
                    packet.torpor_to = content[:16]
            image.add(Entry(packet, data))


def _pack(sender: object, family: int) -> bytes:
    assert isinstance(sender, tuple)
    port: int = sender[1]
    return socket.inet_pton(family, sender[0].partition("%")[0]) + port.to_bytes(_PORT, "big")


def restore(connection: Socket, file_id: int, sk: m.inet_sk_entry, context: RestoreContext, *, is_shared: bool) -> None:
    """Put back what waited; to be called when the socket is bound and nothing limits it yet."""
    waiting = context.part(Queues).of(file_id)
    if not waiting:
        return
    what = f"socket {file_id}"
    if is_shared or sk.opts.so_bound_dev or not sk.src_port:
        log.warn(f"{what}: {len(waiting)} unread datagrams are dropped: others might get them instead")
        return
    options.widen(connection)
    raw = context.part(Raw).sockets
    own = addresses.plain_bytes(sk.src_addr)
    for packet in waiting:
        source = _plain(packet.message.torpor_from[:-_PORT])
        port = int.from_bytes(packet.message.torpor_from[-_PORT:], "big")
        target = _plain(packet.message.torpor_to) or own
        if len(source) not in _LOOPBACK or (packet.message.torpor_to and len(target) != len(source)):
            raise ImageError(f"sk-queues.img: {what}: impossible addresses of a datagram")
        if not any(target) or len(target) != len(source):
            target = _LOOPBACK[len(source)]
        way = packets.Way(source, port, target, sk.src_port)
        try:
            content = packets.udp(way, packet.payload, sk.proto)
            packets.send(raw.get(len(source), sk.ns_id), way, content, addresses.scope_of(sk, what))
        except (OSError, RestoreError) as error:
            log.warn(f"{what}: unread datagrams are dropped: {error}")
            return


def _plain(address: bytes) -> bytes:
    """IPv4 in IPv6's clothes is IPv4."""
    return address[12:] if len(address) == 16 and address[:12] == addresses.MAPPED else address


class Raw:
    """What the datagrams are sent by."""

    def __init__(self, context: RestoreContext) -> None:
        self.sockets = tcp_fin.RawSockets(context)
        context.at(RestoreStage.CLOSED, self.sockets.close)
