"""What kinds of interfaces there are: which CRIU's images know by name, and what of a driver's words makes one again.

Kernel view
    IFLA_INFO_KIND and IFLA_INFO_DATA of RTM_GETLINK; a few interfaces are in each new namespace by themselves.
Image
    ``nd_type``.  A kind that CRIU does not know is an ``EXTLINK``, which it expects whoever restores to have made; what
    it is stands in ``torpor-link-%u.img``.
Restore
    A kind of ``REPLAYED`` is made by its driver's own words, less those that are state; veth and tun have their own
    ways.
Limits
    An interface of any other kind cannot be made, unless it is one that a new namespace has anyway.
"""

from __future__ import annotations

import struct

from torpor.images import messages as m
from torpor.kernel import netlink
from torpor.kernel.rtnetlink import ARPHRD_LOOPBACK, IFLA_ADDRESS, Link
from torpor.kernel.uapi.if_h import IFF_UP

TYPES = {
    "veth": m.nd_type.VETH,
    "tun": m.nd_type.TUN,
    "bridge": m.nd_type.BRIDGE,
    "macvlan": m.nd_type.MACVLAN,
    "sit": m.nd_type.SIT,
}
KIND_OF_TYPE = {number: kind for kind, number in TYPES.items()}

#: Kinds that are made again from the driver's own words.
REPLAYED = frozenset(
    ("bridge", "macvlan", "sit", "dummy", "ifb", "vlan", "vxlan", "ipvlan", "vrf", "ipip", "gre", "gretap", "ip6tnl",
     "ip6gre", "ip6gretap", "vti", "vti6", "geneve", "nlmon", "vcan", "bareudp")
)  # fmt: skip
#: Kinds that can be made on top of an interface of ours by ``--external KIND[NAME]:OURS``.
ON_TOP = ("macvlan", "ipvlan", "vlan")

#: The kernel makes these in each new namespace.
_AUTOMATIC = (
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
)  # fmt: skip

#: Of what a bridge says of itself, that which can be set (IFLA_BR_*); the rest is state.
_BRIDGE = frozenset((*range(1, 10), 20, *range(22, 40), *range(41, 47), 49))
#: The same of what it says of a port (IFLA_BRPORT_*).
_PORT = frozenset((*range(2, 11), 12, 25, *range(27, 35), 37, 39, 40, 42, 43))

_MACVLAN_MODE, _MACVLAN_FLAGS, _MACVLAN_MACADDR_MODE, _MACVLAN_MACADDR_DATA = 1, 2, 3, 5
#: All addresses at once, instead of those there are.
_MACVLAN_MACADDR_SET = struct.pack("=I", 3)
_VXLAN_TTL_INHERIT = 28
#: To the kernel these are in use as soon as they are named.
_VXLAN_USED_IF_NAMED = (21, 22, _VXLAN_TTL_INHERIT)
_GENEVE_TTL_INHERIT = 12
_VLAN_FLAGS = 2
#: Flags and which of them are meant: the kernel tells all 32 bits, and takes those that it knows.
_ifla_vlan_flags = struct.Struct("=II")
_VLAN_FLAGS_KNOWN = 0x1F
_MACVLAN = frozenset((_MACVLAN_MODE, _MACVLAN_FLAGS, _MACVLAN_MACADDR_DATA, 7, 9))


def type_of(link: Link) -> int:
    """``nd_type`` of an interface."""
    if link.type == ARPHRD_LOOPBACK:
        return int(m.nd_type.LOOPBACK)
    return int(TYPES.get(link.kind, m.nd_type.EXTLINK))


def is_automatic(link: Link) -> bool:
    """Whether a new namespace has it anyway, and nobody has used it."""
    return is_named_by_kernel(link.name) and not link.flags & IFF_UP


def is_named_by_kernel(name: str) -> bool:
    """Whether that is the name of one that a new namespace may have anyway; such a one cannot leave it."""
    return name in _AUTOMATIC


def can_be_made(link: Link) -> bool:
    """Whether a new namespace has it, or we can make it there."""
    return link.type == ARPHRD_LOOPBACK or link.kind in ("veth", "tun") or link.kind in REPLAYED or is_automatic(link)


def own_addresses(links: list[Link]) -> set[tuple[int, bytes]]:
    """(interface, link-layer address) of each: a bridge has those of its ports and its own in its table."""
    return {(link.index, address) for link in links if (address := link.attributes.get(IFLA_ADDRESS))}


def settable_data(kind: str, data: bytes) -> bytes:
    """Of the driver's words about an interface those that make one like it."""
    word = {"geneve": _geneve_word, "vlan": _vlan_word, "vxlan": _vxlan_word}.get(kind)
    if word is not None:
        return b"".join([word(number, value) for number, value in netlink.iter_attributes(data)])
    wanted = {"bridge": _BRIDGE, "macvlan": _MACVLAN}.get(kind)
    found = data if wanted is None else _only(wanted, data)
    if kind == "macvlan" and netlink.parse_attributes(found).get(_MACVLAN_MACADDR_DATA):
        found += netlink.attribute(_MACVLAN_MACADDR_MODE, _MACVLAN_MACADDR_SET)
    return found


def _vxlan_word(number: int, value: bytes) -> bytes:
    if number in _VXLAN_USED_IF_NAMED and not any(value):
        return b""
    # Shown as a number, taken as a flag.
    return netlink.attribute(number, b"" if number == _VXLAN_TTL_INHERIT else value)


def _geneve_word(number: int, value: bytes) -> bytes:
    # Where it is named, the kernel does not look at the time to live.
    return b"" if number == _GENEVE_TTL_INHERIT and not any(value) else netlink.attribute(number, value)


def _vlan_word(number: int, value: bytes) -> bytes:
    if number == _VLAN_FLAGS and len(value) == _ifla_vlan_flags.size:
        value = _ifla_vlan_flags.pack(_ifla_vlan_flags.unpack(value)[0], _VLAN_FLAGS_KNOWN)
    return netlink.attribute(number, value)


def settable_port_data(data: bytes) -> bytes:
    """The same of a bridge's words about one of its ports."""
    return _only(_PORT, data)


def _only(wanted: frozenset[int], data: bytes) -> bytes:
    return b"".join(
        netlink.attribute(number, value) for number, value in netlink.iter_attributes(data) if number in wanted
    )


def dump_macvlan(entry: m.net_device_entry, data: bytes) -> None:
    """Fill in ``entry.macvlan`` (``macvlan_link_entry``) from the driver's words, IFLA_INFO_DATA."""
    attributes = netlink.parse_attributes(data)
    entry.macvlan.mode = int.from_bytes(attributes.get(_MACVLAN_MODE, b""), "little")
    if _MACVLAN_FLAGS in attributes:
        entry.macvlan.flags = int.from_bytes(attributes[_MACVLAN_FLAGS][:2], "little")


def macvlan_data(entry: m.net_device_entry) -> bytes:
    """The driver's words from it."""
    words = netlink.number(_MACVLAN_MODE, entry.macvlan.mode)
    if entry.macvlan.HasField("flags"):
        words += netlink.attribute(_MACVLAN_FLAGS, (entry.macvlan.flags & 0xFFFF).to_bytes(2, "little"))
    return words


#: IFLA_IPTUN_* -> field of ``sit_entry``, form.
_SIT_NUMBERS = (
    (1, "link", "=I"), (4, "ttl", "=B"), (5, "tos", "=B"), (8, "flags", "=H"), (9, "proto", "=B"),
    (15, "encap_type", "=H"), (16, "encap_flags", "=H"), (17, "encap_sport", "=H"), (18, "encap_dport", "=H"),
)  # fmt: skip
_LOCAL, _REMOTE, _PMTUDISC = 2, 3, 10
_6RD_PREFIX, _6RD_RELAY_PREFIX, _6RD_PREFIXLEN, _6RD_RELAY_PREFIXLEN = 11, 12, 13, 14


def dump_sit(entry: m.net_device_entry, data: bytes) -> None:
    """Fill in ``entry.sit`` (``sit_entry``) from the driver's words, IFLA_INFO_DATA."""
    attributes = netlink.parse_attributes(data)
    sit = entry.sit
    for number, name, form in _SIT_NUMBERS:
        if number in attributes:
            setattr(sit, name, struct.unpack_from(form, attributes[number])[0])
    for number, addresses in ((_LOCAL, sit.local), (_REMOTE, sit.remote)):
        if any(attributes.get(number, b"")):
            addresses.append(int.from_bytes(attributes[number], "little"))
    if any(attributes.get(_PMTUDISC, b"")):
        sit.pmtudisc = True
    prefix_length = int.from_bytes(attributes.get(_6RD_PREFIXLEN, b""), "little")
    if prefix_length:
        sit.rd_prefixlen = prefix_length
        sit.rd_prefix.extend(struct.unpack("=4I", attributes[_6RD_PREFIX]))
    relay_length = int.from_bytes(attributes.get(_6RD_RELAY_PREFIXLEN, b""), "little")
    if relay_length:
        sit.relay_prefixlen = relay_length
        sit.relay_prefix.append(int.from_bytes(attributes[_6RD_RELAY_PREFIX], "little"))


def sit_data(entry: m.net_device_entry) -> bytes:
    """The driver's words from it."""
    sit = entry.sit
    words = b""
    said = {field.name for field, _ in sit.ListFields()}
    for number, name, form in _SIT_NUMBERS:
        if name in said:
            words += netlink.attribute(number, struct.pack(form, getattr(sit, name)))
    for number, addresses in ((_LOCAL, sit.local), (_REMOTE, sit.remote)):
        for address in addresses[:1]:
            words += netlink.number(number, address)
    if sit.pmtudisc:
        words += netlink.attribute(_PMTUDISC, b"\1")
    if sit.HasField("rd_prefixlen"):
        words += netlink.attribute(_6RD_PREFIXLEN, struct.pack("=H", sit.rd_prefixlen))
        words += netlink.attribute(_6RD_PREFIX, struct.pack("=4I", *sit.rd_prefix))
        for address in sit.relay_prefix[:1]:
            words += netlink.attribute(_6RD_RELAY_PREFIXLEN, struct.pack("=H", sit.relay_prefixlen))
            words += netlink.number(_6RD_RELAY_PREFIX, address)
    return words
