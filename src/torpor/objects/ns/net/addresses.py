"""IP addresses of the interfaces of a network namespace.

Kernel view
    RTM_GETADDR.
Image
    ``ifaddr-%u.img``, as ``ip addr save`` writes it.
Restore
    Once the interfaces are up, RTM_NEWADDR with the same contents; then those that the kernel gave by itself and that
    were not there are taken away.  An IPv6 address that was past its detection of duplicates is so at once.
Limits
    A temporary address of the privacy extensions comes back as an ordinary one with the same lifetime.
"""

from __future__ import annotations

import errno

from torpor.base import log
from torpor.base.errors import KernelError, RestoreError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_UNSPEC, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR, ifaddrmsg
from torpor.kernel.uapi.if_addr import (
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
)
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_EXCL
from torpor.kernel.uapi.rtnetlink import RTMGRP_IPV6_IFADDR
from torpor.objects.ns.net import raw

#: The flags by which the kernel says how an address is doing; nobody sets them.
_STATE = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE

_SETTLING_S = 0.5
_ROOM = 1 << 16

#: (family, prefix length, interface, address)
Key = tuple[int, int, int, bytes]


def dump(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Write all addresses of the namespace of *connection* into the image number *ident*."""
    found = [(RTM_NEWADDR, payload) for payload in _read(connection)]
    raw.store(store, kinds.IFADDR, ident, found, raw.ADDRESSES)


def _read(connection: Netlink) -> list[bytes]:
    return connection.dump(RTM_GETADDR, ifaddrmsg.pack(AF_UNSPEC, 0, 0, 0, 0))


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Make those that were settled, and leave no others."""
    if not store.exists(kinds.IFADDR.file_name(ident)):
        return
    there = {_key(payload): payload for payload in _read(connection)}
    keys = set()
    with Netlink() as events:
        events.bind((0, RTMGRP_IPV6_IFADDR))
        for payload in _load(store, ident):
            if not _is_tentative(payload):
                key = _key(payload)
                keys.add(key)
                _add(connection, payload, key)
        for key, payload in there.items():
            if key not in keys:
                connection.request(RTM_DELADDR, payload)
        _wait_settled(connection, events)


def _wait_settled(connection: Netlink, events: Netlink) -> None:
    """Until the kernel has gone over all new addresses, which it does a little later in a thread of its own."""
    events.settimeout(_SETTLING_S)
    while any(_is_tentative(payload) for payload in _read(connection)):
        try:
            events.recv(_ROOM)
        except TimeoutError:
            log.warn("IPv6 addresses are not usable yet")
            return
        except OSError:
            continue  # more events than the socket can hold


def restore_tentative(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Make those whose detection of duplicates was under way: it begins anew."""
    for payload in _load(store, ident):
        if _is_tentative(payload):
            _add(connection, payload, _key(payload))


def _load(store: ImageStore, ident: int) -> list[bytes]:
    expected = [(RTM_NEWADDR, ifaddrmsg.size)]
    return [payload for _, payload in raw.load(store, kinds.IFADDR, ident, expected, raw.ADDRESSES)]


def _is_tentative(payload: bytes) -> bool:
    flags = netlink.parse_attributes(payload[ifaddrmsg.size :]).get(IFA_FLAGS, payload[2:3])
    return bool(int.from_bytes(flags, "little") & (IFA_F_TENTATIVE | IFA_F_DADFAILED))


def _key(payload: bytes) -> Key:
    family, prefix, _, _, index = ifaddrmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[ifaddrmsg.size :])
    return family, prefix, index, attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS, b""))


def _add(connection: Netlink, payload: bytes, key: Key) -> None:
    family, prefix, flags, scope, index = ifaddrmsg.unpack_from(payload)
    message = ifaddrmsg.pack(family, prefix, flags & ~_STATE, scope, index)
    for kind, value in netlink.iter_attributes(payload[ifaddrmsg.size :]):
        if kind == IFA_FLAGS:
            message += netlink.number(kind, int.from_bytes(value, "little") & ~_STATE)
        else:
            message += netlink.attribute(kind, value)
    try:
        connection.request(RTM_NEWADDR, message, NLM_F_CREATE | NLM_F_EXCL)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise RestoreError(f"the address {describe(key)} cannot be given: {error}") from error


def describe(key: Key) -> str:
    """``10.0.0.1/24 of interface 2``."""
    from _socket import inet_ntop

    family, prefix, index, address = key
    try:
        shown = inet_ntop(family, address)
    except (OSError, ValueError):
        shown = address.hex()
    return f"{shown}/{prefix} of interface {index}"
