"""netlink(7), as little of it as the dump of kernel tables needs: a request, the answers, their attributes.

Source
    ``include/uapi/linux/netlink.h``.
"""

from __future__ import annotations

import _socket as socket
import struct
from collections.abc import Iterator

from torpor.base.errors import KernelError
from torpor.kernel.sockets import Socket

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLMSG_ERROR = 2
NLMSG_DONE = 3

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ROOM = 1 << 17
_TYPE_MASK = 0x3FFF


def dump(protocol: int, kind: int, request: bytes) -> list[bytes]:
    """The payloads of all messages that answer a dump request; KernelError where the kernel says no.

    A table that changed while it was read is read again, a few times.
    """
    payloads: list[bytes] = []
    for _ in range(5):
        payloads, is_torn = _dump_once(protocol, kind, request)
        if not is_torn:
            break
    return payloads


def _dump_once(protocol: int, kind: int, request: bytes) -> tuple[list[bytes], bool]:
    payloads: list[bytes] = []
    is_torn = False
    with Socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as connection:
        size = _HEADER.size + len(request)
        connection.send(_HEADER.pack(size, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + request)
        while True:
            for answer, flags, payload in iter_messages(connection.recv(_ROOM)):
                is_torn |= bool(flags & NLM_F_DUMP_INTR)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    code = -int.from_bytes(payload[:4], "little", signed=True)
                    if code > 0:
                        raise KernelError(f"netlink dump of protocol {protocol}", code)
                    return payloads, is_torn
                payloads.append(payload)


def iter_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, payload) of each message in a datagram; what is cut short is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type; of a type that comes twice the last one."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
