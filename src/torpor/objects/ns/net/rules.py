"""Policy rules of a network namespace: which routing table is asked when.

Kernel view
    RTM_GETRULE of each family.
Image
    ``rule-%u.img``, as ``ip rule save`` writes it.  Those of IPv6, which CRIU does not carry, follow, without the two
    that every namespace has.
Restore
    What is there and was not is taken away, what was and is not is added; rules that are the same stay.
Limits
    The two rules of IPv6 that every namespace has come back if they were taken away.
"""

from __future__ import annotations

import errno

from torpor.base.errors import KernelError, RestoreError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_INET, AF_INET6, RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE, fib_rule_hdr
from torpor.kernel.uapi.fib_rules import FRA_PRIORITY, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_EXCL
from torpor.objects.ns.net import raw

#: Whether interfaces or tables of a rule are there just now.
_STATE = 0x4 | 0x8 | 0x10
_NOTHING = b"\xff\xff\xff\xff"
_ALWAYS6 = ((0, 255), (32766, 254))
_ALWAYS4 = (*_ALWAYS6, (32767, 253))
_TO_TABLE = 1

Key = tuple[bytes, frozenset[tuple[int, bytes]]]


def dump(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Rules of both families."""
    found = _read(connection, AF_INET)
    found += [payload for payload in _read(connection, AF_INET6) if not _is_always_there(payload)]
    raw.store(store, kinds.RULE, ident, [(RTM_NEWRULE, payload) for payload in found], raw.RULES)


def _read(connection: Netlink, family: int) -> list[bytes]:
    try:
        found = connection.dump(RTM_GETRULE, fib_rule_hdr.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return []  # a kernel without that family, or without rules
        raise
    return [payload for payload in found if payload[0] == family]


def count_added(connection: Netlink) -> int:
    """How many there are beside those of a new namespace."""
    added = [payload for payload in _read(connection, AF_INET) if not _is_always_there(payload, _ALWAYS4)]
    return len(added) + sum(not _is_always_there(payload) for payload in _read(connection, AF_INET6))


def _is_always_there(payload: bytes, always: tuple[tuple[int, int], ...] = _ALWAYS6) -> bool:
    _, source, destination, tos, _, _, _, action, _ = fib_rule_hdr.unpack_from(payload)
    rest = netlink.parse_attributes(payload[fib_rule_hdr.size :])
    priority = int.from_bytes(rest.pop(FRA_PRIORITY, b""), "little")
    table = int.from_bytes(rest.pop(FRA_TABLE, b""), "little")
    plain = rest.keys() <= {FRA_SUPPRESS_PREFIXLEN, FRA_PROTOCOL}
    return not source and not destination and not tos and action == _TO_TABLE and plain and (priority, table) in always


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Have these rules and no others."""
    if not store.exists(kinds.RULE.file_name(ident)):
        return
    found = raw.load(store, kinds.RULE, ident, [(RTM_NEWRULE, fib_rule_hdr.size)], raw.RULES)
    if not found:
        return  # by a tool that could not save them
    for family in (AF_INET, AF_INET6):
        wanted = {_key(payload): payload for _, payload in found if payload[0] == family}
        there = {_key(payload): payload for payload in _read(connection, family)}
        for key, payload in there.items():
            if key not in wanted and not (family == AF_INET6 and _is_always_there(payload)):
                connection.request(RTM_DELRULE, _settable(payload))
        for key, payload in wanted.items():
            if key not in there:
                _add(connection, payload)


def _key(payload: bytes) -> Key:
    """All that a rule says, in no order; the kernel leaves out some of what has its usual value."""
    message = _settable(payload)
    attributes = {
        (kind, value)
        for kind, value in netlink.iter_attributes(message[fib_rule_hdr.size :])
        if kind != FRA_PROTOCOL and not (kind == FRA_PRIORITY and not any(value))
    }
    return message[: fib_rule_hdr.size], frozenset(attributes)


def _settable(payload: bytes) -> bytes:
    head = list(fib_rule_hdr.unpack_from(payload))
    head[8] &= ~_STATE
    rest = b"".join(
        netlink.attribute(kind, value)
        for kind, value in netlink.iter_attributes(payload[fib_rule_hdr.size :])
        if not (kind == FRA_SUPPRESS_PREFIXLEN and value == _NOTHING)
    )
    return fib_rule_hdr.pack(*head) + rest


def _add(connection: Netlink, payload: bytes) -> None:
    try:
        connection.request(RTM_NEWRULE, _settable(payload), NLM_F_CREATE | NLM_F_EXCL)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            priority = netlink.parse_attributes(payload[fib_rule_hdr.size :]).get(FRA_PRIORITY, b"")
            number = int.from_bytes(priority, "little")
            raise RestoreError(f"the routing rule of priority {number} cannot be made: {error}") from error
