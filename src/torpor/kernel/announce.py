"""Telling the neighbours of a network where its addresses are now: gratuitous ARP, and unsolicited neighbour
advertisements.

Source
    RFC 826 and RFC 5227, 3 (a request for one's own address); RFC 4861, 7.2.6.
"""

from __future__ import annotations

import _socket as socket
import struct

from torpor.kernel.netlink import Netlink, parse_attributes
from torpor.kernel.packets import checksum
from torpor.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFF_NOARP,
    IFLA_ADDRESS,
    RTM_GETADDR,
    Link,
    ifaddrmsg,
    read_links,
)
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.if_addr import IFA_ADDRESS, IFA_LOCAL
from torpor.kernel.uapi.if_arp import ARPHRD_ETHER
from torpor.kernel.uapi.if_h import IFF_UP

_ETH_P_ARP, _ETH_P_IP, _ETH_P_IPV6 = 2054, 2048, 34525
_REQUEST = 1
_BROADCAST = b"\xff" * 6
#: All nodes of a link, as Ethernet and as IPv6 have them.
_ALL_NODES_MAC, _ALL_NODES = bytes.fromhex("333300000001"), socket.inet_pton(socket.AF_INET6, "ff02::1")
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK = 136, 0x20000000, 2
_ICMPV6, _HOPS = 58, 255


def announce() -> int:
    """Tell of each address of each Ethernet interface that is up, in this thread's network namespace; how many."""
    with Netlink() as connection:
        links = {link.index: link for link in read_links(connection) if _speaks(link)}
        addresses = connection.dump(RTM_GETADDR, ifaddrmsg.pack(AF_UNSPEC, 0, 0, 0, 0))
    n_told = 0
    with Socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as wire:
        for payload in addresses:
            family, _, _, _, index = ifaddrmsg.unpack_from(payload)
            link = links.get(index)
            found = parse_attributes(payload[ifaddrmsg.size :])
            address = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
            if link is None or not address:
                continue
            mac = link.attributes[IFLA_ADDRESS]
            kind, frame = (
                (_ETH_P_ARP, arp(mac, address)) if family == AF_INET else (_ETH_P_IPV6, advertise(mac, address))
            )
            if family in (AF_INET, AF_INET6):
                wire.bind((link.name, kind))
                wire.send(frame)
                n_told += 1
    return n_told


def _speaks(link: Link) -> bool:
    return (
        link.type == ARPHRD_ETHER
        and bool(link.flags & IFF_UP)
        and not link.flags & IFF_NOARP
        and len(link.attributes.get(IFLA_ADDRESS, b"")) == len(_BROADCAST)
    )


def arp(mac: bytes, address: bytes) -> bytes:
    """A frame that asks everybody for the own IPv4 *address*."""
    head = struct.pack("!HHBBH", ARPHRD_ETHER, _ETH_P_IP, len(mac), len(address), _REQUEST)
    return _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP) + head + mac + address + bytes(len(mac)) + address


def advertise(mac: bytes, address: bytes) -> bytes:
    """A frame that tells all nodes that the IPv6 *address* is at *mac*, whatever they have known until now."""
    content = struct.pack("!I", _OVERRIDE) + address + struct.pack("!BB", _TARGET_LINK, 1) + mac
    length = 4 + len(content)
    pseudo = address + _ALL_NODES + struct.pack("!II", length, _ICMPV6)
    total = checksum(pseudo + struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + content)
    packet = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, _HOPS) + address + _ALL_NODES
    frame = _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_P_IPV6)
    return frame + packet + struct.pack("!BBH", _ADVERTISEMENT, 0, total) + content
