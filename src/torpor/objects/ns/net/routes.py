"""Routes of a network namespace, in all its tables.

Kernel view
    RTM_GETROUTE of each family.
Image
    ``route-%u.img`` and ``route6-%u.img``, as ``ip route save`` writes them.  CRIU has the main table only; images with
    ``torpor-link-%u.img`` have all.
Restore
    After the addresses: those that need no other route first, the others until no more can be made.  Routes of the
    kernel's making that were not there are taken away.
Limits
    The kernel makes the table ``local`` by itself from the addresses.  A route by a nexthop object has that object's
    content.  Multicast routing and what the kernel has learned (exceptions, clones) are not carried.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from torpor.base.errors import KernelError, RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_INET, AF_INET6, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE, rtmsg
from torpor.kernel.uapi.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL
from torpor.kernel.uapi.rtnetlink import (
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_EXPIRES,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTM_F_CLONED,
    RTN_LOCAL,
    RTPROT_BOOT,
    RTPROT_KERNEL,
    RTPROT_STATIC,
)
from torpor.objects.ns.net import raw

IMAGES: tuple[tuple[int, ImageKind[m.Message]], ...] = ((AF_INET, kinds.ROUTE), (AF_INET6, kinds.ROUTE6))

#: How the next hop is just now: dead, its link down, what hardware does with it.
_NEXTHOP_STATE = 0x1 | 0x8 | 0x10 | 0x20 | 0x40 | 0x4000
_rta_cacheinfo_expires = struct.Struct("=8xi")
_USER_HZ = 100
#: Something else must be there first.
_LATER = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.ENETDOWN)

#: (table, destination and its length, type of service, priority, type, interface, gateway)
Key = tuple[int, bytes, int, int, int, int, int, bytes]


def dump(store: ImageStore, ident: int, connection: Netlink) -> None:
    """All routes but those that the kernel makes with each address."""
    for family, kind in IMAGES:
        found = [(RTM_NEWROUTE, payload) for payload in _read(connection, family)]
        raw.store(store, kind, ident, found, raw.ROUTES)


def _read(connection: Netlink, family: int) -> list[bytes]:
    try:
        found = connection.dump(RTM_GETROUTE, rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []  # a kernel without that family
        raise
    return [payload for payload in found if payload[0] == family and _is_carried(payload)]


def count_entered(connection: Netlink) -> int:
    """How many somebody has made, but for the default ones that every container has."""
    count = 0
    for payload in [*_read(connection, AF_INET), *_read(connection, AF_INET6)]:
        _, length, _, _, table, protocol, _, _, _ = rtmsg.unpack_from(payload)
        count += protocol in (RTPROT_BOOT, RTPROT_STATIC) and bool(length or table != RT_TABLE_MAIN)
    return count


def _is_carried(payload: bytes) -> bool:
    _, _, _, _, table, protocol, _, _, flags = rtmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[rtmsg.size :])
    table = int.from_bytes(attributes.get(RTA_TABLE, bytes([table])), "little")
    return not flags & RTM_F_CLONED and not (table == RT_TABLE_LOCAL and protocol == RTPROT_KERNEL)


def restore(store: ImageStore, ident: int, connection: Netlink, *, has_all: bool) -> None:
    """Make them; where the images have all there were, leave no others."""
    for family, kind in IMAGES:
        if not store.exists(kind.file_name(ident)):
            continue
        expected = [(RTM_NEWROUTE, rtmsg.size)]
        wanted = [payload for _, payload in raw.load(store, kind, ident, expected, raw.ROUTES)]
        wanted = [payload for payload in wanted if _is_carried(payload)]
        _add_all(connection, wanted)
        if has_all:
            keys = {key_of(payload) for payload in wanted}
            for payload in _read(connection, family):
                if key_of(payload) not in keys and rtmsg.unpack_from(payload)[5] == RTPROT_KERNEL:
                    connection.request(RTM_DELROUTE, payload)


def key_of(payload: bytes) -> Key:
    """What tells a route from others."""
    _, length, _, tos, table, _, _, kind, _ = rtmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[rtmsg.size :])

    def number(name: int) -> int:
        return int.from_bytes(attributes.get(name, b""), "little")

    gateway = attributes.get(RTA_GATEWAY, attributes.get(RTA_VIA, b""))
    return (
        number(RTA_TABLE) or table, attributes.get(RTA_DST, b""), length, tos, number(RTA_PRIORITY), kind,
        number(RTA_OIF), gateway,
    )  # fmt: skip


def _add_all(connection: Netlink, payloads: Iterable[bytes]) -> None:
    todo = sorted(payloads, key=_rank)
    while todo:
        left: list[tuple[bytes, KernelError]] = []
        for payload in todo:
            try:
                _add(connection, payload)
            except KernelError as error:
                if error.errno not in _LATER:
                    raise _failed(payload, error) from error
                left.append((payload, error))
        if len(left) == len(todo):
            raise _failed(*left[0]) from left[0][1]
        todo = [payload for payload, _ in left]


def _failed(payload: bytes, error: KernelError) -> RestoreError:
    from _socket import inet_ntop

    table, destination, length = key_of(payload)[:3]
    size = 4 if payload[0] == AF_INET else 16
    shown = inet_ntop(payload[0], destination.ljust(size, b"\0")[:size])
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return RestoreError(f"the route to {shown}/{length} of table {table} cannot be made: {error}{notes}")


def _rank(payload: bytes) -> int:
    attributes = netlink.parse_attributes(payload[rtmsg.size :])
    if rtmsg.unpack_from(payload)[7] == RTN_LOCAL:
        return 0
    return 2 if attributes.keys() & {RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH} else 1


def _add(connection: Netlink, payload: bytes) -> None:
    head = list(rtmsg.unpack_from(payload))
    head[8] &= ~_NEXTHOP_STATE
    message = rtmsg.pack(*head)
    for kind, value in netlink.iter_attributes(payload[rtmsg.size :]):
        if kind == RTA_NH_ID:
            continue
        if kind == RTA_CACHEINFO and head[0] == AF_INET6 and len(value) >= _rta_cacheinfo_expires.size:
            (ticks,) = _rta_cacheinfo_expires.unpack_from(value)
            if ticks > 0:
                message += netlink.number(RTA_EXPIRES, max(ticks // _USER_HZ, 1))
            continue
        message += netlink.attribute(kind, _without_state(value) if kind == RTA_MULTIPATH else value)
    flags = NLM_F_CREATE | (NLM_F_APPEND if head[0] == AF_INET else NLM_F_EXCL)
    try:
        connection.request(RTM_NEWROUTE, message, flags)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise


def _without_state(hops: bytes) -> bytes:
    """The next hops of a multipath route, without what is the case just now."""
    found = bytearray(hops)
    at = 0
    while at + 8 <= len(found):
        length = int.from_bytes(found[at : at + 2], "little")
        if length < 8:
            break
        found[at + 2] &= ~_NEXTHOP_STATE & 0xFF
        at += (length + 3) & ~3
    return bytes(found)
