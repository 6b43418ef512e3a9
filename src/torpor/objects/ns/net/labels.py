"""Labels of IPv6 addresses, by which the source of a connection is chosen (RFC 6724): ip-addrlabel(8).

Kernel view
    RTM_GETADDRLABEL.
Image
    ``torpor-label-%u.img``, ours: RTM_NEWADDRLABEL messages, all there are; none where they are those of a new
    namespace.  CRIU does not carry them.
Restore
    Once there are interfaces, which a label may be bound to: these and no others.
Limits
    One that this kernel does not take is left out with a warning.
"""

from __future__ import annotations

import errno

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_INET6, ifaddrlblmsg
from torpor.kernel.uapi.if_addrlabel import IFAL_ADDRESS, IFAL_LABEL
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_EXCL
from torpor.kernel.uapi.rtnetlink import RTM_DELADDRLABEL, RTM_GETADDRLABEL, RTM_NEWADDRLABEL
from torpor.objects.ns.net import raw

_ADDRESS_BYTES = 16
#: (prefix length, interface, prefix)
Key = tuple[int, int, bytes]


def _key_of(prefix: str) -> Key:
    address, _, length = prefix.partition("/")
    return int(length), 0, bytes.fromhex(address).ljust(_ADDRESS_BYTES, b"\0")


#: What a new namespace has (net/ipv6/addrlabel.c).
_USUAL = {
    _key_of("/0"): 1,
    _key_of("fc/7"): 5,
    _key_of("fec0/10"): 11,
    _key_of("2002/16"): 2,
    _key_of("3ffe/16"): 12,
    _key_of("20010000/32"): 6,
    _key_of("20010010/28"): 7,
    _key_of("00000000000000000000ffff/96"): 4,
    _key_of("/96"): 3,
    _key_of("00000000000000000000000000000001/128"): 0,
}


def dump(store: ImageStore, ident: int, connection: Netlink) -> None:
    """All of them, where somebody has changed some."""
    found = _read(connection)
    if found is not None and dict(map(_parse, found)) != _USUAL:
        raw.store(store, kinds.TORPOR_LABEL, ident, [(RTM_NEWADDRLABEL, payload) for payload in found])


def count_changed(connection: Netlink) -> int:
    """How many are not as in a new namespace, or not there."""
    found = _read(connection)
    return len(dict(map(_parse, found)).items() ^ _USUAL.items()) if found is not None else 0


def _read(connection: Netlink) -> list[bytes] | None:
    try:
        return connection.dump(RTM_GETADDRLABEL, ifaddrlblmsg.pack(AF_INET6, 0, 0, 0, 0))
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return None  # a kernel without IPv6
        raise


def _parse(payload: bytes) -> tuple[Key, int]:
    _, length, _, index, _ = ifaddrlblmsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[ifaddrlblmsg.size :])
    label = int.from_bytes(attributes.get(IFAL_LABEL, b""), "little")
    return (length, index, attributes.get(IFAL_ADDRESS, b"")), label


def restore(store: ImageStore, ident: int, connection: Netlink) -> None:
    """Have these labels and no others, where the images have any."""
    if not store.exists(kinds.TORPOR_LABEL.file_name(ident)):
        return
    loaded = raw.load(store, kinds.TORPOR_LABEL, ident, [(RTM_NEWADDRLABEL, ifaddrlblmsg.size)])
    wanted = dict(_parse(payload) for _, payload in loaded)
    there = dict(map(_parse, _read(connection) or ()))
    for key, label in there.items():
        if wanted.get(key) != label:
            connection.request(RTM_DELADDRLABEL, _message(key, label))
    for key, label in wanted.items():
        if there.get(key) != label:
            try:
                connection.request(RTM_NEWADDRLABEL, _message(key, label), NLM_F_CREATE | NLM_F_EXCL)
            except KernelError as error:
                log.warn(f"the label {label} of IPv6 addresses {key[2].hex()}/{key[0]} is left out: {error}")


def _message(key: Key, label: int) -> bytes:
    length, index, address = key
    return (
        ifaddrlblmsg.pack(AF_INET6, length, 0, index, 0)
        + netlink.attribute(IFAL_ADDRESS, address)
        + netlink.number(IFAL_LABEL, label)
    )
