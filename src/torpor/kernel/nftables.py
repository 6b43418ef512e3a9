"""nftables, spoken to by netlink: as much of it as it takes to hold back packets with a table of our own.

One batch is one transaction: the kernel takes all of it or nothing, whenever we die.

Source
    ``include/uapi/linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct
from collections.abc import Iterable, Sequence

from torpor.base.errors import KernelError
from torpor.kernel.netlink import iter_messages
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from torpor.kernel.uapi.socket import SO_SNDBUFFORCE

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _DEL_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_SETELEM = 0, 1, 2, 3, 6, 9, 12
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_ARP, NFPROTO_IPV6 = 1, 2, 3, 10
DROP, ACCEPT = 0, 1
LOCAL_IN, LOCAL_OUT = 1, 3
ARP_IN, ARP_OUT = 0, 1
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_META_MARK, _META_NFPROTO, _META_L4PROTO = 3, 15, 16
_NETWORK, _TRANSPORT = 1, 2
#: Where TCP's flags are in its header, and of FIN, SYN, RST and ACK that which a new connection has.
_FLAGS_AT, _OF_FLAGS, _IS_NEW = 13, b"\x17", b"\x02"
#: ipv4_addr, inet_service and ipv6_addr as nft(8) numbers types of keys; it packs a concatenation's six bits each.
_TYPE_IPV4, _TYPE_SERVICE, _TYPE_IPV6 = 7, 13, 8
_ROOM = 1 << 16


def open_socket() -> Socket:
    """A connection to the nftables of the network namespace that this thread is in, wherever it is used from."""
    return Socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)


def commit(connection: Socket, messages: Sequence[bytes]) -> None:
    """Send one batch; KernelError with the first error, and nothing is changed then."""
    content = batch(messages)
    if len(content) > _ROOM:
        connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(content))
    connection.send(content)
    while True:
        try:
            answers = connection.recv(_ROOM, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # all answers have come by the time that the batch has been sent
        for kind, _, payload in iter_messages(answers):
            code = -int.from_bytes(payload[:4], "little", signed=True) if kind == NLMSG_ERROR else 0
            if code:
                raise KernelError("nftables batch", code)


def batch(messages: Sequence[bytes]) -> bytes:
    """The bytes of a transaction."""
    head = struct.pack("=BBH", 0, 0, socket.htons(_SUBSYSTEM))
    return b"".join((_message(_BATCH_BEGIN, 0, head), *messages, _message(_BATCH_END, 0, head)))


def has_table(connection: Socket, table: str, family: int = NFPROTO_INET) -> bool:
    """Whether there is a table of that name; KernelError where there are no nftables."""
    request = _table_message(_GET_TABLE, NLM_F_ACK, table, b"", family)
    connection.send(request)
    for kind, _, payload in iter_messages(connection.recv(_ROOM)):
        if kind != NLMSG_ERROR:
            connection.recv(_ROOM, socket.MSG_DONTWAIT)
            return True
        code = -int.from_bytes(payload[:4], "little", signed=True)
        if code not in (0, errno.ENOENT):
            raise KernelError("nftables", code)
    return False


def new_table(table: str, family: int = NFPROTO_INET) -> bytes:
    """A new table; the batch fails with EEXIST if there is one of that name."""
    return _table_message(_NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, table, b"", family)


def delete_table(table: str, family: int = NFPROTO_INET) -> bytes:
    """The table goes, and all in it; ENOENT without one."""
    return _table_message(_DEL_TABLE, 0, table, b"", family)


def new_chain(table: str, chain: str, hook: int, policy: int, family: int = NFPROTO_INET) -> bytes:
    """A filter chain of priority 0 at *hook*."""
    at = _number(1, hook) + _number(2, 0)
    content = _text(1, table) + _text(3, chain) + _attribute(4 | _NESTED, at) + _number(5, policy) + _text(7, "filter")
    return _object(_NEW_CHAIN, NLM_F_CREATE, content, family)


def set_policy(table: str, chain: str, policy: int, family: int = NFPROTO_INET) -> bytes:
    """What a chain does with packets that none of its rules speaks of."""
    return _object(_NEW_CHAIN, 0, _text(1, table) + _text(3, chain) + _number(5, policy), family)


def new_set(table: str, name: str, family: int, ident: int) -> bytes:
    """A set of connections: source address and port, then the destination's."""
    kinds = (_TYPE_IPV4 if family == NFPROTO_IPV4 else _TYPE_IPV6, _TYPE_SERVICE)
    key_type = 0
    for kind in (*kinds, *kinds):
        key_type = key_type << 6 | kind
    key_length = 2 * (_address_length(family) + 4)
    content = _text(1, table) + _text(2, name) + _number(3, 0) + _number(4, key_type) + _number(5, key_length)
    return _object(_NEW_SET, NLM_F_CREATE, content + _number(10, ident))


def new_elements(table: str, name: str, keys: Iterable[bytes]) -> bytes:
    """Connections (made by ``connection_key``) for a set."""
    elements = b"".join(_attribute(1 | _NESTED, _attribute(1 | _NESTED, _attribute(1, key))) for key in keys)
    content = _text(1, table) + _text(2, name) + _attribute(3 | _NESTED, elements)
    return _object(_NEW_SETELEM, NLM_F_CREATE, content)


def connection_key(source: bytes, source_port: int, target: bytes, target_port: int) -> bytes:
    """Packed addresses and ports as a set of connections has them."""
    return source + struct.pack("!HH", source_port, 0) + target + struct.pack("!HH", target_port, 0)


def accept_mark(table: str, chain: str, mark: int) -> bytes:
    """``meta mark MARK accept``."""
    return _rule(table, chain, _meta(_META_MARK), _equals(struct.pack("=I", mark)), _verdict(ACCEPT))


def drop_new_connections(table: str, chain: str) -> bytes:
    """``tcp flags & (fin|syn|rst|ack) == syn drop``."""
    return _rule(
        table,
        chain,
        _meta(_META_L4PROTO), _equals(bytes([socket.IPPROTO_TCP])),
        _payload(1, _TRANSPORT, _FLAGS_AT, 1),
        _masked(1, _OF_FLAGS),
        _equals(_IS_NEW),
        _verdict(DROP),
    )  # fmt: skip


def drop_connections(table: str, chain: str, name: str, family: int) -> bytes:
    """Drop the TCP packets whose addresses and ports are in the set *name*."""
    length = _address_length(family)
    at = 12 if family == NFPROTO_IPV4 else 8
    # 32-bit registers are numbered from 8; 1 is the first four of them in one.
    port, target = 8 + length // 4, 9 + length // 4
    return _rule(
        table,
        chain,
        _meta(_META_NFPROTO), _equals(bytes([family])),
        _meta(_META_L4PROTO), _equals(bytes([socket.IPPROTO_TCP])),
        _payload(1, _NETWORK, at, length),
        _payload(port, _TRANSPORT, 0, 2),
        _payload(target, _NETWORK, at + length, length),
        _payload(target + length // 4, _TRANSPORT, 2, 2),
        _expression("lookup", _text(1, name) + _number(2, 1)),
        _verdict(DROP),
    )  # fmt: skip


def _address_length(family: int) -> int:
    return 4 if family == NFPROTO_IPV4 else 16


def _rule(table: str, chain: str, *expressions: bytes) -> bytes:
    content = _text(1, table) + _text(2, chain) + _attribute(4 | _NESTED, b"".join(expressions))
    return _object(_NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, content)


def _meta(key: int) -> bytes:
    return _expression("meta", _number(2, key) + _number(1, 1))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1) + _number(2, 0) + _attribute(3 | _NESTED, _attribute(1, value)))


def _masked(length: int, mask: bytes) -> bytes:
    fields = b"".join(map(_number, (1, 2, 3), (1, 1, length)))
    values = (_attribute(kind | _NESTED, _attribute(1, value)) for kind, value in ((4, mask), (5, bytes(length))))
    return _expression("bitwise", fields + b"".join(values))


def _payload(register: int, base: int, offset: int, length: int) -> bytes:
    return _expression("payload", b"".join(map(_number, (1, 2, 3, 4), (register, base, offset, length))))


def _verdict(code: int) -> bytes:
    verdict = _attribute(2 | _NESTED, _number(1, code))
    return _expression("immediate", _number(1, 0) + _attribute(2 | _NESTED, verdict))


def _expression(name: str, data: bytes) -> bytes:
    return _attribute(1 | _NESTED, _text(1, name) + _attribute(2 | _NESTED, data))


def _table_message(kind: int, flags: int, table: str, more: bytes, family: int = NFPROTO_INET) -> bytes:
    return _object(kind, flags, _text(1, table) + more, family)


def _object(kind: int, flags: int, content: bytes, family: int = NFPROTO_INET) -> bytes:
    return _message(_SUBSYSTEM << 8 | kind, flags, struct.pack("=BBH", family, 0, 0) + content)


def _message(kind: int, flags: int, content: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(content), kind, NLM_F_REQUEST | flags, 0, 0) + content


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
