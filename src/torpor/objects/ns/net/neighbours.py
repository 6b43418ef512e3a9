"""Neighbours that were set for good: link-layer addresses, proxies, and the static table of bridges and tunnels.

Kernel view
    RTM_GETNEIGH; of the state NUD_PERMANENT, in a bridge's table also NUD_NOARP.
Image
    ``torpor-neigh-%u.img``, ours: RTM_NEWNEIGH messages.  CRIU does not carry them.
Restore
    RTM_NEWNEIGH once the interfaces are up.
Limits
    What was learned is learned again.  One that this kernel does not take is left out with a warning.
"""

from __future__ import annotations

import errno

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_BRIDGE, AF_INET, AF_INET6, RTM_GETNEIGH, RTM_NEWNEIGH, ndmsg
from torpor.kernel.uapi.neighbour import (
    NDA_CACHEINFO,
    NDA_DST,
    NDA_LLADDR,
    NDA_MASTER,
    NDA_PROBES,
    NTF_MASTER,
    NTF_PROXY,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
)
from torpor.kernel.uapi.netlink import NLM_F_CREATE
from torpor.objects.ns.net import raw

_MULTICAST = 0x01


def dump(store: ImageStore, ident: int, connection: Netlink, own_addresses: set[tuple[int, bytes]]) -> None:
    """All permanent ones; *own_addresses* (interface, link-layer address) are in a bridge's table by themselves."""
    found = _read_entered(connection)
    found += [payload for payload in _read(connection, AF_BRIDGE, 0) if _is_static(payload, own_addresses)]
    if found:
        raw.store(store, kinds.TORPOR_NEIGH, ident, [(RTM_NEWNEIGH, payload) for payload in found])


def count_entered(connection: Netlink) -> int:
    """How many somebody has entered for IPv4 and IPv6."""
    return len(_read_entered(connection))


def _read_entered(connection: Netlink) -> list[bytes]:
    found = []
    for family in (AF_INET, AF_INET6):
        found += [payload for payload in _read(connection, family, 0) if _state(payload) & NUD_PERMANENT]
        found += _read(connection, family, NTF_PROXY)
    return found


def _read(connection: Netlink, family: int, flags: int) -> list[bytes]:
    try:
        found = connection.dump(RTM_GETNEIGH, ndmsg.pack(family, 0, 0, flags, 0))
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return []
        raise
    return [payload for payload in found if payload[0] == family]


def _state(payload: bytes) -> int:
    return int(ndmsg.unpack_from(payload)[2])


def _is_static(payload: bytes, own_addresses: set[tuple[int, bytes]]) -> bool:
    """Whether somebody entered it: not what was learned, nor an interface's own or a multicast group's address."""
    _, index, state, flags, _ = ndmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[ndmsg.size :])
    address = attributes.get(NDA_LLADDR, b"")
    if not address or (address[0] & _MULTICAST and NDA_DST not in attributes):
        return False
    if (index, address) in own_addresses:
        return False
    is_entered = NDA_MASTER in attributes or NDA_DST in attributes or bool(flags & NTF_SELF)
    return is_entered and bool(state & (NUD_PERMANENT | NUD_NOARP))


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Enter the neighbours of the image; what this kernel does not take is left out with a warning."""
    for _, payload in raw.load(store, kinds.TORPOR_NEIGH, ident, [(RTM_NEWNEIGH, ndmsg.size)]):
        family, index, state, flags, kind = ndmsg.unpack_from(payload)
        attributes = netlink.parse_attributes(payload[ndmsg.size :])
        if family == AF_BRIDGE and not flags & (NTF_SELF | NTF_MASTER):
            # A bridge is no port of itself.
            master = attributes.get(NDA_MASTER, index.to_bytes(4, "little", signed=True))
            flags |= NTF_SELF if int.from_bytes(master, "little") == index else NTF_MASTER
        message = ndmsg.pack(family, index, state, flags, kind)
        for number, value in attributes.items():
            if number not in (NDA_CACHEINFO, NDA_PROBES, NDA_MASTER):
                message += netlink.attribute(number, value)
        try:
            connection.request(RTM_NEWNEIGH, message, NLM_F_CREATE)
        except KernelError as error:
            log.warn(f"a permanent neighbour of interface {index} is left out: {error}")
