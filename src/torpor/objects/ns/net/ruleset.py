"""nftables as the kernel tells of them: what no listing for people says in full, rules of iptables-nft above all.

Kernel view
    NFT_MSG_GET* of tables, chains, sets with their elements, objects, flowtables, rules.
Image
    ``torpor-nft-%u.img``, ours: these messages.  Other readers have ``nftables-%u.img``.
Restore
    The same messages in one transaction, without the numbers that the kernel gives.  What an xtables match of a rule
    needs to know, the protocol that the rule is for, is told by the rule's own comparisons.
Limits
    Tables that belong to a running program (``flags owner``) become ordinary ones.  Rulesets with chains without a name
    are left to the listing.
"""

from __future__ import annotations

import _socket as socket
from collections.abc import Iterator

from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink, nftables
from torpor.kernel.netlink import Netlink
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from torpor.kernel.uapi.socket import SO_SNDBUFFORCE
from torpor.objects.ns.net import raw
from torpor.tracee import caretaker
from torpor.tracee.caretaker import Step

#: How CRIU and we call the tables by which packets are held back during a checkpoint.
LOCK = "CRIU-"
_SUBSYSTEM = 10 << 8
_NFGENMSG_SIZE = 4
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_SETELEM, _NEW_OBJ, _NEW_FLOWTABLE = 0, 3, 6, 9, 12, 18, 22
_GET_SETELEM = 13
#: In the order in which they can be made: the request, the answer, what of the answer is the kernel's own.
_KINDS = (
    (1, _NEW_TABLE, (3, 4, 7)),
    (4, _NEW_CHAIN, (2, 6)),
    (19, _NEW_OBJ, (5, 6)),
    (23, _NEW_FLOWTABLE, (4, 5)),
    (10, _NEW_SET, (16, 19, 20)),
    (_GET_SETELEM, _NEW_SETELEM, ()),
    (7, _NEW_RULE, (3, 6)),
)
_EXPECTED = [(_SUBSYSTEM | answer, _NFGENMSG_SIZE) for _, answer, _ in _KINDS]
_OWN = {answer: numbers for _, answer, numbers in _KINDS}
#: Of every kind the table's name; a table's flags; a set's name and id; a chain's flags; a rule's parts.
_TABLE, _TABLE_FLAGS, _SET_NAME, _SET_ID, _CHAIN_FLAGS = 1, 2, 2, 10, 10
_RULE_EXPRESSIONS, _RULE_COMPAT = 4, 5
_F_OWNER, _F_BINDING = 0x2 | 0x4, 0x4
_NAMES_OF_XTABLES = (b"match", b"target")
_META_L4PROTO = 16
_EXPR_NAME, _EXPR_DATA = 1, 2
_PROTOCOL_FIELDS = ((2, 9), (10, 6))  # family, offset in the network header
_CMP_EQ = 0
_COMPAT_INVERTED = 2


def read(connection: Netlink) -> list[tuple[int, bytes]]:
    """(type, payload) of all there is but tables that hold back packets; KernelError for a kernel without nftables."""
    found: list[tuple[int, bytes]] = []
    for request, answer, _ in _KINDS:
        if request == _GET_SETELEM:
            for _, each in [one for one in found if one[0] == _SUBSYSTEM | _NEW_SET]:
                attributes = netlink.parse_attributes(each[_NFGENMSG_SIZE:])
                words = netlink.attribute(1, attributes[_TABLE]) + netlink.attribute(2, attributes[_SET_NAME])
                elements = connection.dump(_SUBSYSTEM | request, each[:_NFGENMSG_SIZE] + words)
                found += [(_SUBSYSTEM | answer, payload) for payload in elements]
            continue
        try:
            payloads = connection.dump(_SUBSYSTEM | request, bytes(_NFGENMSG_SIZE))
        except KernelError:
            if answer != _NEW_FLOWTABLE:
                raise
            continue  # a kernel without those
        found += [(_SUBSYSTEM | answer, payload) for payload in payloads if not _is_lock(payload)]
    return found


def _is_lock(payload: bytes) -> bool:
    name = netlink.parse_attributes(payload[_NFGENMSG_SIZE:]).get(_TABLE, b"")
    return name.startswith(LOCK.encode())


def can_be_replayed(messages: list[tuple[int, bytes]]) -> bool:
    """Whether what ``read`` gave is all that it takes to make it again."""
    for kind, payload in messages:
        if kind == _SUBSYSTEM | _NEW_CHAIN:
            flags = netlink.parse_attributes(payload[_NFGENMSG_SIZE:]).get(_CHAIN_FLAGS, b"")
            if int.from_bytes(flags, "big") & _F_BINDING:
                return False
    return True


def dump(store: ImageStore, ident: int, messages: list[tuple[int, bytes]]) -> None:
    """Write what ``read`` gave."""
    raw.store(store, kinds.TORPOR_NFT, ident, messages)


def restore(store: ImageStore, ident: int) -> bool:
    """Make it all again, in the calling thread's namespace; whether the images have it.  KernelError, and nothing."""
    messages = raw.load(store, kinds.TORPOR_NFT, ident, _EXPECTED)
    if not messages:
        return False
    batch = [_encode(kind, payload, number) for number, (kind, payload) in enumerate(messages, 1)]
    with nftables.open_socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, sum(map(len, batch)) * 2 + (1 << 16))
        nftables.commit(connection, batch)
    return True


def steps_back(store: ImageStore, ident: int, connection: Socket) -> list[Step]:
    """What of a caretaker takes away, by the socket *connection* of the namespace, what ``restore`` makes."""
    tables = [
        nftables.delete_table(attributes[_TABLE].rstrip(b"\0").decode(errors="surrogateescape"), payload[0])
        for kind, payload in raw.load(store, kinds.TORPOR_NFT, ident, _EXPECTED)
        if kind == _SUBSYSTEM | _NEW_TABLE
        and _TABLE in (attributes := netlink.parse_attributes(payload[_NFGENMSG_SIZE:]))
    ]
    return [caretaker.send(connection.fileno(), nftables.batch(tables))] if tables else []


def _encode(kind: int, payload: bytes, number: int) -> bytes:
    what = kind & 0xFF
    words = [
        (name, value)
        for name, value in netlink.iter_attributes(payload[_NFGENMSG_SIZE:])
        if name not in _OWN[what] and not (what == _NEW_SET and name == _SET_ID)
    ]
    if what == _NEW_TABLE:
        words = [(name, _without_owner(value) if name == _TABLE_FLAGS else value) for name, value in words]
    elif what == _NEW_SET:
        words.append((_SET_ID, number.to_bytes(4, "big")))
    elif what == _NEW_RULE:
        words += _compat(payload[0], dict(words).get(_RULE_EXPRESSIONS, b""))
    flags = NLM_F_REQUEST | NLM_F_CREATE | (NLM_F_APPEND if what == _NEW_RULE else 0)
    return netlink.encode(kind, flags, payload[:_NFGENMSG_SIZE] + b"".join([_word(*word) for word in words]))


def _without_owner(flags: bytes) -> bytes:
    return (int.from_bytes(flags, "big") & ~_F_OWNER).to_bytes(4, "big")


def _word(name: int, value: bytes) -> bytes:
    """An attribute; the kernel does not mind whether one that holds others says so."""
    return netlink.attribute(name, value)


def _compat(family: int, expressions: bytes) -> list[tuple[int, bytes]]:
    """NFTA_RULE_COMPAT, if a match or target of xtables is among the expressions: for which protocol the rule is."""
    protocol, flags, has_xtables, is_next = 0, 0, False, False
    for name, words in _expressions(expressions):
        if name in _NAMES_OF_XTABLES:
            has_xtables = True
        if is_next and name == b"cmp":
            value = netlink.parse_attributes(words.get(3, b"")).get(1, b"")
            if len(value) == 1:
                protocol = value[0]
                flags = 0 if int.from_bytes(words.get(2, b""), "big") == _CMP_EQ else _COMPAT_INVERTED
        is_next = _is_protocol(family, name, words)
    if not has_xtables:
        return []
    content = netlink.attribute(1, protocol.to_bytes(4, "big")) + netlink.attribute(2, flags.to_bytes(4, "big"))
    return [(_RULE_COMPAT, content)]


def _expressions(data: bytes) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    for _, element in netlink.iter_attributes(data):
        attributes = netlink.parse_attributes(element)
        yield attributes.get(_EXPR_NAME, b"").rstrip(b"\0"), netlink.parse_attributes(attributes.get(_EXPR_DATA, b""))


def _is_protocol(family: int, name: bytes, words: dict[int, bytes]) -> bool:
    """Whether an expression loads the transport protocol of a packet."""

    def number(kind: int) -> int:
        return int.from_bytes(words.get(kind, b""), "big")

    if name == b"meta":
        return number(2) == _META_L4PROTO
    return name == b"payload" and number(2) == 1 and (family, number(3)) in _PROTOCOL_FIELDS and number(4) == 1
