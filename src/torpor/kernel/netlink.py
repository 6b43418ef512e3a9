"""netlink(7): dumps of kernel tables, requests that change something, messages and their attributes.

Source
    ``include/uapi/linux/netlink.h``.
"""

from __future__ import annotations

import _socket as socket
import struct
from collections.abc import Iterator, Sequence

from torpor.base.errors import KernelError
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.netlink import (
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from torpor.kernel.uapi.socket import SOL_NETLINK

NLM_F_MULTI = 0x2
NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
NLMSG_DONE = 3

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ROOM = 1 << 17
_TYPE_MASK = 0x3FFF
_NESTED = 0x8000
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 10, 11
_EXTACK_TEXT = 1


class Netlink(Socket):
    """A netlink socket, of the network namespace in which the calling thread was when it made it."""

    __slots__ = ()

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        super().__init__(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.setsockopt(SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self.setsockopt(SOL_NETLINK, _NETLINK_EXT_ACK, 1)

    def request(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Ask for a change, and wait for the kernel's word; KernelError, with the kernel's reason as a note."""
        self.ask(kind, payload, flags)

    def ask(self, kind: int, payload: bytes, flags: int = 0) -> list[bytes]:
        """Like ``request``; the payloads of what was answered."""
        self.send(encode(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload))
        answers: list[bytes] = []
        while True:
            for answer, answer_flags, body in iter_messages(self.recv(_ROOM)):
                if answer != NLMSG_ERROR:
                    answers.append(body)
                    continue
                code = -int.from_bytes(body[:4], "little", signed=True)
                if code > 0:
                    raise _explained(KernelError(f"netlink request {kind}", code), answer_flags, body)
                return answers

    def dump(self, kind: int, request: bytes) -> list[bytes]:
        """The payloads of all messages that answer a dump request; KernelError where the kernel says no.

        A table that changed while it was read is read again, a few times.
        """
        payloads: list[bytes] = []
        for _ in range(5):
            payloads, is_torn = self._dump_once(kind, request)
            if not is_torn:
                break
        return payloads

    def _dump_once(self, kind: int, request: bytes) -> tuple[list[bytes], bool]:
        payloads: list[bytes] = []
        is_torn = False
        self.send(encode(kind, NLM_F_REQUEST | NLM_F_DUMP, request))
        while True:
            for answer, flags, payload in iter_messages(self.recv(_ROOM)):
                is_torn |= bool(flags & NLM_F_DUMP_INTR)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    code = -int.from_bytes(payload[:4], "little", signed=True)
                    if code > 0:
                        raise KernelError(f"netlink dump {kind}", code)
                    return payloads, is_torn
                payloads.append(payload)


def _explained(error: KernelError, flags: int, body: bytes) -> KernelError:
    """With the text of an extended acknowledgement."""
    if flags & _NLM_F_ACK_TLVS:
        # With NETLINK_CAP_ACK only the header of our request comes back before the attributes.
        at = 4 + _HEADER.size
        if not flags & _NLM_F_CAPPED:
            at = 4 + max(_HEADER.size, _HEADER.unpack_from(body, 4)[0] + 3 & ~3)
        text = parse_attributes(body[at:]).get(_EXTACK_TEXT)
        if text:
            error.add_note(f"the kernel says: {text.rstrip(bytes(1)).decode(errors='replace')}")
    return error


def encode(kind: int, flags: int, payload: bytes) -> bytes:
    """A message of type *kind*, with its header and what pads it to 4 bytes; its sequence number is always 1."""
    size = _HEADER.size + len(payload)
    return _HEADER.pack(size, kind, flags, 1, 0) + payload + bytes(-size & 3)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, with what pads it."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size & 3)


def number(kind: int, value: int) -> bytes:
    """An attribute that holds 32 bits."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "little"))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a string."""
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def dump(protocol: int, kind: int, request: bytes) -> list[bytes]:
    """``Netlink.dump`` by a socket made for it."""
    with Netlink(protocol) as connection:
        return connection.dump(kind, request)


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
    return dict(iter_attributes(data))


def iter_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without its flags, value) of each attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def find(data: bytes | bytearray, start: int, path: Sequence[int]) -> tuple[int, int] | None:
    """Where in *data* the value of an attribute begins and ends; None if it is not there.

    *path* are the types of those that hold it, and its own; attributes begin at *start*.
    """
    at, end = start, len(data)
    for wanted in path:
        while at + _ATTRIBUTE.size <= end:
            length, kind = _ATTRIBUTE.unpack_from(data, at)
            if length < _ATTRIBUTE.size or at + length > end:
                return None
            if kind & _TYPE_MASK == wanted:
                at, end = at + _ATTRIBUTE.size, at + length
                break
            at += (length + 3) & ~3
        else:
            return None
    return at, end
