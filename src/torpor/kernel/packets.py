"""IP packets made by hand, for a socket of this machine, as if its peer had sent them.

A raw socket sends them by the loopback interface, on which the kernel has looked up the way before it receives them: it
does not mind that the sender's address is somebody else's.
"""

from __future__ import annotations

import _socket as socket
import struct

from torpor.base.records import dataclass
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.socket import SO_MARK

FIN, ACK = 0x01, 0x10
#: The protocol of raw sockets that bring their own IP headers.
RAW = 255
_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_TTL = 64


@dataclass(frozen=True, slots=True)
class Way:
    """From whom to whom: packed addresses of one family, and ports."""

    source: bytes
    source_port: int
    target: bytes
    target_port: int


def tcp(way: Way, seq: int, ack: int, flags: int, window: int) -> bytes:
    """A segment without options and data."""
    mask = 0xFFFFFFFF
    head = (way.source_port, way.target_port, seq & mask, ack & mask, 5 << 4, flags, min(window, 0xFFFF))
    total = checksum(_pseudo(way, socket.IPPROTO_TCP, _TCP.size) + _TCP.pack(*head, 0, 0))
    return _wrap(way, socket.IPPROTO_TCP, _TCP.pack(*head, total, 0))


def udp(way: Way, data: bytes, protocol: int = socket.IPPROTO_UDP) -> bytes:
    """A datagram; of UDP-Lite its checksum covers all."""
    length = _UDP.size + len(data)
    # A coverage of 0 is all of it.
    field = length if protocol == socket.IPPROTO_UDP else 0
    plain = _UDP.pack(way.source_port, way.target_port, field, 0) + data
    total = checksum(_pseudo(way, protocol, length) + plain) or 0xFFFF
    return _wrap(way, protocol, _UDP.pack(way.source_port, way.target_port, field, total) + data)


def send(connection: Socket, way: Way, packet: bytes, scope: int = 0) -> None:
    """Send a packet made here by a socket made by ``prepare``; *scope* is the interface of a link-local address."""
    is_v4 = len(way.target) == 4
    text = socket.inet_ntop(socket.AF_INET if is_v4 else socket.AF_INET6, way.target)
    connection.sendto(packet, (text, 0) if is_v4 else (text, 0, 0, scope))


def prepare(connection: Socket, mark: int) -> None:
    """Have a raw socket (IPPROTO_RAW) send marked packets that bring their own headers."""
    connection.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)


def _wrap(way: Way, protocol: int, content: bytes) -> bytes:
    if len(way.target) == 4:
        head = (0x45, 0, _V4.size + len(content), 0, 0, _TTL, protocol)
        total = checksum(_V4.pack(*head, 0, way.source, way.target))
        return _V4.pack(*head, total, way.source, way.target) + content
    return _V6.pack(6 << 28, len(content), protocol, _TTL, way.source, way.target) + content


def _pseudo(way: Way, protocol: int, length: int) -> bytes:
    return way.source + way.target + struct.pack("!II", length, protocol)


def checksum(data: bytes) -> int:
    """The Internet checksum of *data* (RFC 1071), of 16 bits; an odd last byte counts as if a zero followed."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
