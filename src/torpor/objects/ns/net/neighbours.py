"""Neighbours that were set for good: link-layer addresses, proxies, and the static table of bridges and tunnels.

Kernel view
    RTM_GETNEIGH; of the state NUD_PERMANENT or NUD_NOARP, those that a routing daemon has entered (``extern_learn``)
    and those that the kernel is to look for all the time (``managed``).  It makes some of NUD_NOARP by itself, for
    groups and where nobody is asked: their addresses are a group's, an interface's own, or none.
Image
    ``torpor-neigh-%u.img``, ours: RTM_NEWNEIGH messages.  CRIU does not carry them.
Restore
    RTM_NEWNEIGH once the interfaces are up.
Limits
    What was learned is learned again, and so is what was entered as if it had been (``nud reachable``).  One that this
    kernel does not take is left out with a warning.
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
    NDA_FLAGS_EXT,
    NDA_LLADDR,
    NDA_MASTER,
    NDA_PROBES,
    NTF_EXT_LEARNED,
    NTF_EXT_MANAGED,
    NTF_MASTER,
    NTF_PROXY,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
)
from torpor.kernel.uapi.netlink import NLM_F_CREATE
from torpor.objects.ns.net import raw

_MULTICAST = 0x01
_ETHERNET_ADDRESS = 6


def dump(store: ImageStore, ident: int, connection: Netlink, own_addresses: set[tuple[int, bytes]]) -> None:
    """All permanent ones; *own_addresses* (interface, link-layer address) are there by themselves."""
    found = _read_entered(connection, own_addresses)
    found += [payload for payload in _read(connection, AF_BRIDGE, 0) if _is_static(payload, own_addresses)]
    if found:
        raw.store(store, kinds.TORPOR_NEIGH, ident, [(RTM_NEWNEIGH, payload) for payload in found])


def count_entered(connection: Netlink, own_addresses: set[tuple[int, bytes]]) -> int:
    """How many somebody has entered for IPv4 and IPv6; *own_addresses* as above."""
    return len(_read_entered(connection, own_addresses))


def _read_entered(connection: Netlink, own_addresses: set[tuple[int, bytes]]) -> list[bytes]:
    found = []
    for family in (AF_INET, AF_INET6):
        found += [payload for payload in _read(connection, family, 0) if _is_entered(payload, own_addresses)]
        found += _read(connection, family, NTF_PROXY)
    return found


def _is_entered(payload: bytes, own_addresses: set[tuple[int, bytes]]) -> bool:
    _, index, state, flags, _ = ndmsg.unpack_from(payload)
    if state & NUD_PERMANENT:
        return True
    attributes = netlink.parse_attributes(payload[ndmsg.size :])
    address = attributes.get(NDA_LLADDR, b"")
    if flags & NTF_EXT_LEARNED or _is_managed(attributes):
        return bool(address) or _is_managed(attributes)
    is_usual = len(address) != _ETHERNET_ADDRESS or address[0] & _MULTICAST or not any(address)
    return bool(state & NUD_NOARP) and not is_usual and (index, address) not in own_addresses


def _is_managed(attributes: dict[int, bytes]) -> bool:
    return bool(int.from_bytes(attributes.get(NDA_FLAGS_EXT, b""), "little") & NTF_EXT_MANAGED)


def _read(connection: Netlink, family: int, flags: int) -> list[bytes]:
    try:
        found = connection.dump(RTM_GETNEIGH, ndmsg.pack(family, 0, 0, flags, 0))
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return []
        raise
    return [payload for payload in found if payload[0] == family]


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
    return is_entered and bool(state & (NUD_PERMANENT | NUD_NOARP) or flags & NTF_EXT_LEARNED)


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Enter the neighbours of the image; what this kernel does not take is left out with a warning."""
    for _, payload in raw.load(store, kinds.TORPOR_NEIGH, ident, [(RTM_NEWNEIGH, ndmsg.size)]):
        family, index, state, flags, kind = ndmsg.unpack_from(payload)
        attributes = netlink.parse_attributes(payload[ndmsg.size :])
        if family == AF_BRIDGE and not flags & (NTF_SELF | NTF_MASTER):
            # A bridge is no port of itself.
            master = attributes.get(NDA_MASTER, index.to_bytes(4, "little", signed=True))
            flags |= NTF_SELF if int.from_bytes(master, "little") == index else NTF_MASTER
        left_out = {NDA_CACHEINFO, NDA_PROBES, NDA_MASTER}
        if _is_managed(attributes):
            # The kernel begins to look for it at once.
            state = 0
            left_out.add(NDA_LLADDR)
        message = ndmsg.pack(family, index, state, flags, kind)
        for number, value in attributes.items():
            if number not in left_out:
                message += netlink.attribute(number, value)
        try:
            connection.request(RTM_NEWNEIGH, message, NLM_F_CREATE)
        except KernelError as error:
            log.warn(f"a permanent neighbour of interface {index} is left out: {error}")
