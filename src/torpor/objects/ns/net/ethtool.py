"""What ethtool(8) sets of interfaces: features, queues of veth in use, what the driver of tun keeps.

Kernel view
    ETHTOOL_MSG_*_GET of the generic netlink family ``ethtool`` (Linux 5.6).
Image
    ``torpor-ethtool-%u.img``, ours: ETHTOOL_MSG_*_SET as types of messages, each with what follows the header of
    netlink; of features, all that can be changed, by their names.  CRIU does not carry them.
Restore
    Once all interfaces are there: what is not so already.
Limits
    Interfaces that whoever restores gives (``--external netdev[..]``) are left to them.  What this kernel does not take
    is left out with a warning.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink, rtnetlink
from torpor.kernel.genetlink import command, families, genlmsghdr
from torpor.kernel.namespaces import CLONE_NEWNET, isolated, unshare
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import RTM_NEWLINK, Link, link_message
from torpor.kernel.uapi.ethtool_netlink import (
    ETHTOOL_A_BITSET_BIT_NAME,
    ETHTOOL_A_BITSET_BIT_VALUE,
    ETHTOOL_A_BITSET_BITS,
    ETHTOOL_A_BITSET_BITS_BIT,
    ETHTOOL_A_BITSET_NOMASK,
    ETHTOOL_A_CHANNELS_RX_COUNT,
    ETHTOOL_A_CHANNELS_TX_COUNT,
    ETHTOOL_A_COALESCE_RX_MAX_FRAMES,
    ETHTOOL_A_DEBUG_MSGMASK,
    ETHTOOL_A_FEATURES_ACTIVE,
    ETHTOOL_A_FEATURES_HEADER,
    ETHTOOL_A_FEATURES_HW,
    ETHTOOL_A_FEATURES_WANTED,
    ETHTOOL_A_HEADER_DEV_NAME,
    ETHTOOL_A_LINKMODES_DUPLEX,
    ETHTOOL_A_LINKMODES_SPEED,
    ETHTOOL_MSG_CHANNELS_GET,
    ETHTOOL_MSG_CHANNELS_SET,
    ETHTOOL_MSG_COALESCE_GET,
    ETHTOOL_MSG_COALESCE_SET,
    ETHTOOL_MSG_DEBUG_GET,
    ETHTOOL_MSG_DEBUG_SET,
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_LINKMODES_GET,
    ETHTOOL_MSG_LINKMODES_SET,
)
from torpor.kernel.uapi.netlink import NETLINK_GENERIC, NLM_F_CREATE, NLM_F_EXCL
from torpor.objects.ns.net import raw

_FAMILY = "ethtool"
#: Of all these messages.
_HEADER = ETHTOOL_A_FEATURES_HEADER
#: What sets them: what tells them, and which of that can be set.
_PLAIN = {
    ETHTOOL_MSG_CHANNELS_SET: (
        ETHTOOL_MSG_CHANNELS_GET, (ETHTOOL_A_CHANNELS_RX_COUNT, ETHTOOL_A_CHANNELS_TX_COUNT)
    ),
    ETHTOOL_MSG_COALESCE_SET: (ETHTOOL_MSG_COALESCE_GET, (ETHTOOL_A_COALESCE_RX_MAX_FRAMES,)),
    ETHTOOL_MSG_DEBUG_SET: (ETHTOOL_MSG_DEBUG_GET, (ETHTOOL_A_DEBUG_MSGMASK,)),
    ETHTOOL_MSG_LINKMODES_SET: (
        ETHTOOL_MSG_LINKMODES_GET, (ETHTOOL_A_LINKMODES_SPEED, ETHTOOL_A_LINKMODES_DUPLEX)
    ),
}  # fmt: skip

#: What is off of a new interface of these kinds, as far as it can be changed; of veth rx-gro since 5.13 (d3256efd8e8b).
_USUALLY_OFF = frozenset(("rx-gro-list", "rx-udp-gro-forwarding", "tx-nocache-copy"))
_USUALLY = {"": _USUALLY_OFF, "veth": _USUALLY_OFF | {"rx-gro"}}
#: Of a feature that is wanted.
_ON = b"\1"
#: By the number of what sets it, and the interface: what can be set, by an attribute's number or a feature's name.
Settings = dict[tuple[int, str], dict[int | str, bytes]]


def read() -> Settings:
    """Those of all interfaces of the thread's namespace; none where the kernel does not tell."""
    found: Settings = {}
    with Netlink(NETLINK_GENERIC) as connection:
        family = families(connection).get(_FAMILY)
        if family is None:
            return {}
        for name, attributes in _ask(connection, family, ETHTOOL_MSG_FEATURES_GET):
            wanted = dict(_bits(attributes.get(ETHTOOL_A_FEATURES_WANTED, b"")))
            can_be_set = [bit for bit, value in _bits(attributes.get(ETHTOOL_A_FEATURES_HW, b"")) if value]
            found[ETHTOOL_MSG_FEATURES_SET, name] = {bit: wanted.get(bit, b"") for bit in can_be_set}
        for number, (asked, settable) in _PLAIN.items():
            for name, attributes in _ask(connection, family, asked):
                found[number, name] = {key: attributes[key] for key in settable if key in attributes}
    return found


def active(name: str) -> set[str]:
    """The features of the interface *name* of the thread's namespace that are on, as far as the kernel tells."""
    with Netlink(NETLINK_GENERIC) as connection:
        family = families(connection).get(_FAMILY)
        if family is None:
            return set()
        for each, attributes in _ask(connection, family, ETHTOOL_MSG_FEATURES_GET):
            if each == name:
                return {bit for bit, value in _bits(attributes.get(ETHTOOL_A_FEATURES_ACTIVE, b"")) if value}
    return set()


def _ask(connection: Netlink, family: int, number: int) -> Iterator[tuple[str, dict[int, bytes]]]:
    try:
        found = connection.dump(family, command(number, netlink.nested(_HEADER)))
    except KernelError:
        return  # Linux 5.10, where no interface has any
    for payload in found:
        attributes = netlink.parse_attributes(payload[genlmsghdr.size :])
        yield _name(attributes), attributes


def _name(attributes: Mapping[int, bytes]) -> str:
    header = netlink.parse_attributes(attributes.get(_HEADER, b""))
    return _text(header.get(ETHTOOL_A_HEADER_DEV_NAME, b""))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def _bits(bitset: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and value of each bit that is listed: in a list without a mask all are set.  Some have no name."""
    whole = netlink.parse_attributes(bitset)
    for _, bit in netlink.iter_attributes(whole.get(ETHTOOL_A_BITSET_BITS, b"")):
        attributes = netlink.parse_attributes(bit)
        if name := _text(attributes.get(ETHTOOL_A_BITSET_BIT_NAME, b"")):
            is_set = ETHTOOL_A_BITSET_BIT_VALUE in attributes or ETHTOOL_A_BITSET_NOMASK in whole
            yield name, _ON if is_set else b""


def _encode(number: int, name: str, settings: Mapping[int | str, bytes]) -> bytes:
    words = [netlink.nested(_HEADER, netlink.text(ETHTOOL_A_HEADER_DEV_NAME, name))]
    bits = []
    for key, value in settings.items():
        if isinstance(key, int):
            # The only ones that are bits.
            encode = netlink.nested if number == ETHTOOL_MSG_DEBUG_SET else netlink.attribute
            words.append(encode(key, value))
        else:
            flag = netlink.attribute(ETHTOOL_A_BITSET_BIT_VALUE, b"") if value else b""
            bits.append(netlink.nested(ETHTOOL_A_BITSET_BITS_BIT, netlink.text(ETHTOOL_A_BITSET_BIT_NAME, key), flag))
    if bits:
        words.append(netlink.nested(ETHTOOL_A_FEATURES_WANTED, netlink.nested(ETHTOOL_A_BITSET_BITS, *bits)))
    return command(number, b"".join(words))


def _decode(number: int, payload: bytes) -> tuple[str, dict[int | str, bytes]]:
    attributes = netlink.parse_attributes(payload[genlmsghdr.size :])
    if number == ETHTOOL_MSG_FEATURES_SET:
        return _name(attributes), dict(_bits(attributes.get(ETHTOOL_A_FEATURES_WANTED, b"")))
    return _name(attributes), {key: attributes[key] for key in _PLAIN[number][1] if key in attributes}


def changed(links: Iterable[Link]) -> list[str]:
    """The names of those of *links* whose features are not a new one's, as far as one can be made: lo and veth.

    They are the thread's namespace's.  One is made, in a namespace for it, where there is a doubt.
    """
    there = read()
    found = [(link, there.get((ETHTOOL_MSG_FEATURES_SET, link.name), {})) for link in links if link.kind in _USUALLY]
    doubtful = [(link, features) for link, features in found if not _is_usual(link.kind, features)]
    new = isolated(_read_new) if doubtful else {}
    return [link.name for link, features in doubtful if features != new.get(link.kind)]


def _is_usual(kind: str, found: Mapping[int | str, bytes]) -> bool:
    return {name for name, value in found.items() if not value} == found.keys() & _USUALLY[kind]


def _read_new() -> dict[str, dict[int | str, bytes]]:
    """Features of a new interface, by its kind."""
    unshare(CLONE_NEWNET)
    with Netlink() as connection:
        kind = netlink.text(rtnetlink.IFLA_INFO_KIND, "veth")
        message = link_message(0, netlink.nested(rtnetlink.IFLA_LINKINFO, kind))
        connection.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL)
        links = rtnetlink.read_links(connection)
    there = read()
    return {link.kind: there.get((ETHTOOL_MSG_FEATURES_SET, link.name), {}) for link in links}


def dump(store: ImageStore, ident: int, names: Collection[str]) -> None:
    """Those of the interfaces *names* of the thread's namespace."""
    found = [(key[0], _encode(*key, settings)) for key, settings in read().items() if key[1] in names and settings]
    if found:
        raw.store(store, kinds.TORPOR_ETHTOOL, ident, found)


def restore(store: ImageStore, ident: int, names: Collection[str]) -> None:
    """Set what is not so already of the interfaces *names*; what this kernel does not take, a warning tells.

    A feature that cannot be changed here is as it is.
    """
    expected = [(number, genlmsghdr.size) for number in (ETHTOOL_MSG_FEATURES_SET, *_PLAIN)]
    messages = raw.load(store, kinds.TORPOR_ETHTOOL, ident, expected)
    there = read() if messages else {}
    for number, payload in messages:
        name, wanted = _decode(number, payload)
        known = there.get((number, name), {})
        other = {key: value for key, value in wanted.items() if known.get(key, value) != value}
        if other and name in names:
            change(number, name, other)


def change(number: int, name: str, settings: Mapping[int | str, bytes]) -> None:
    """Set *settings* of the interface *name*; that the kernel does not take them, a warning tells."""
    with Netlink(NETLINK_GENERIC) as connection:
        try:
            connection.request(families(connection)[_FAMILY], _encode(number, name, settings))
        except KernelError as error:
            if number == ETHTOOL_MSG_LINKMODES_SET and error.errno == errno.EOPNOTSUPP:
                return  # nobody has set it: a bridge tells what its ports have
            log.warn(f"what ethtool has set of {name} is left out: {error}")
