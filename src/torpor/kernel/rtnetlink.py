"""rtnetlink(7): the messages about interfaces, addresses, routes, rules and neighbours, and their numbers.

Source
    ``include/uapi/linux/rtnetlink.h``, ``if_link.h``, ``if_addr.h``, ``if_addrlabel.h``, ``fib_rules.h``,
    ``neighbour.h``, ``if.h``.
"""

from __future__ import annotations

import struct

from torpor.base.records import dataclass, field
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.rtnetlink import RTM_GETNSID

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNSID = 88

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6, AF_MPLS = 0, 2, 7, 10, 28

ARPHRD_LOOPBACK = 772

IFF_BROADCAST, IFF_DEBUG, IFF_POINTOPOINT = 0x2, 0x4, 0x10
IFF_NOTRAILERS, IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI = 0x20, 0x80, 0x100, 0x200
IFF_MULTICAST, IFF_DYNAMIC = 0x1000, 0x8000

IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_QDISC = 1, 2, 3, 4, 5, 6
IFLA_MASTER, IFLA_TXQLEN, IFLA_LINKMODE, IFLA_LINKINFO, IFLA_IFALIAS = 10, 13, 17, 18, 20
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 26, 27, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_CARRIER = 31, 32, 33
IFLA_LINK_NETNSID, IFLA_PROTO_DOWN, IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_XDP = 37, 39, 40, 41, 43
IFLA_NEW_IFINDEX, IFLA_PROP_LIST, IFLA_ALT_IFNAME, IFLA_PROTO_DOWN_REASON = 49, 52, 53, 55
IFLA_GRO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE = 58, 63, 64
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET6_TOKEN, IFLA_INET6_ADDR_GEN_MODE = 7, 8
VETH_INFO_PEER = 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3
RTM_NEWLINKPROP = 108

IN6_ADDR_GEN_MODE_NONE = 1

_NETNSA_NSID, _NETNSA_FD = 1, 3

ifinfomsg = struct.Struct("=BxHiII")
ifaddrmsg = struct.Struct("=BBBBI")
rtmsg = struct.Struct("=BBBBBBBBI")
fib_rule_hdr = struct.Struct("=BBBBBBBBI")
ndmsg = struct.Struct("=BxxxiHBB")
tcmsg = struct.Struct("=BxxxiIII")
ifaddrlblmsg = struct.Struct("=BxBBII")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as RTM_NEWLINK tells of it.  ``payload`` is the whole message without its header.

    ``kind`` is "" for one that no rtnetlink driver made (``lo``, hardware).  ``link`` is the interface below it or its
    peer, 0 for none; ``link_netnsid`` says in which namespace that is, None for its own.
    """

    index: int
    type: int
    flags: int
    payload: bytes
    attributes: dict[int, bytes] = field(default_factory=dict)
    info: dict[int, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _string(self.attributes.get(IFLA_IFNAME, b""))

    @property
    def kind(self) -> str:
        return _string(self.info.get(IFLA_INFO_KIND, b""))

    @property
    def data(self) -> bytes:
        """What its driver has to say."""
        return self.info.get(IFLA_INFO_DATA, b"")

    @property
    def link(self) -> int:
        return self.number(IFLA_LINK)

    @property
    def link_netnsid(self) -> int | None:
        value = self.attributes.get(IFLA_LINK_NETNSID)
        return None if value is None else int.from_bytes(value, "little", signed=True)

    def number(self, kind: int) -> int:
        """An attribute of 32 bits, 0 if there is none."""
        return int.from_bytes(self.attributes.get(kind, b"")[:4], "little")


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def parse_link(payload: bytes) -> Link:
    """The interface that the payload of an RTM_NEWLINK tells of, with its attributes taken apart."""
    _, kind, index, flags, _ = ifinfomsg.unpack_from(payload)
    attributes = netlink.parse_attributes(payload[ifinfomsg.size :])
    info = netlink.parse_attributes(attributes.get(IFLA_LINKINFO, b""))
    return Link(index, kind, flags, payload, attributes, info)


def read_links(connection: Netlink) -> list[Link]:
    """All interfaces of the socket's namespace, without their statistics."""
    request = ifinfomsg.pack(AF_UNSPEC, 0, 0, 0, 0) + netlink.number(IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [parse_link(payload) for payload in connection.dump(RTM_GETLINK, request)]


def link_message(index: int, *attributes: bytes, flags: int = 0, change: int = 0) -> bytes:
    """What RTM_NEWLINK and RTM_SETLINK take; *change* says which flags are meant."""
    return ifinfomsg.pack(AF_UNSPEC, 0, index, flags, change) + b"".join(attributes)


def addr_gen_mode(link: Link) -> int | None:
    """How IPv6 makes its link-local address; None without IPv6."""
    families = netlink.parse_attributes(link.attributes.get(IFLA_AF_SPEC, b""))
    mode = netlink.parse_attributes(families.get(AF_INET6, b"")).get(IFLA_INET6_ADDR_GEN_MODE)
    return mode[0] if mode else None


def addr_gen_mode_attribute(mode: int) -> bytes:
    """The attribute that sets it, without doing anything at once as the sysctl would."""
    return netlink.nested(
        IFLA_AF_SPEC, netlink.nested(AF_INET6, netlink.attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([mode])))
    )


def token(link: Link) -> bytes:
    """What addresses that routers offer end with there; nothing where that is as usual."""
    families = netlink.parse_attributes(link.attributes.get(IFLA_AF_SPEC, b""))
    found = netlink.parse_attributes(families.get(AF_INET6, b"")).get(IFLA_INET6_TOKEN, b"")
    return found if any(found) else b""


def token_attribute(value: bytes) -> bytes:
    """The attribute that sets it."""
    return netlink.nested(IFLA_AF_SPEC, netlink.nested(AF_INET6, netlink.attribute(IFLA_INET6_TOKEN, value)))


def read_nsid(connection: Netlink, netns_fd: int) -> int | None:
    """By which number the socket's namespace knows another; None for one without."""
    payload = bytes(4) + netlink.number(_NETNSA_FD, netns_fd)
    for answer in connection.ask(RTM_GETNSID, payload):
        value = netlink.parse_attributes(answer[4:]).get(_NETNSA_NSID)
        if value is not None:
            number = int.from_bytes(value, "little", signed=True)
            return number if number >= 0 else None
    return None


def set_nsid(connection: Netlink, netns_fd: int, nsid: int) -> None:
    """Have the socket's namespace know another by that number."""
    payload = bytes(4) + netlink.number(_NETNSA_FD, netns_fd) + netlink.number(_NETNSA_NSID, nsid)
    connection.request(RTM_NEWNSID, payload)
