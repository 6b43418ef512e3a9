"""Which options of sockets are carried without a field in CRIU's messages, by family and protocol.

tests/objects/test_option_walk.py asks the kernel for every number there is: what comes back is here or in
``sk_opts_entry``, and what does not is in that test's table, with the reason.
"""

from __future__ import annotations

import _socket as socket

from torpor.base.records import dataclass
from torpor.kernel.uapi.socket import SOL_NETLINK, SOL_PACKET, SOL_RAW

_UDPLITE, _MPTCP = 136, 262
TCP_MAXSEG = 2


@dataclass(frozen=True, slots=True)
class Opaque:
    """An option without a field in CRIU's messages: level, number, bytes."""

    level: int
    name: int
    size: int = 4


def _of_level(level: int, size: int = 4, **numbers: int) -> tuple[Opaque, ...]:
    return tuple(Opaque(level, number, size) for number in numbers.values())


# fmt: off
#: The old forms of timestamps come before the new ones: the last one set decides the form of all.
_ANY = (
    *_of_level(
        socket.SOL_SOCKET,
        PEEK_OFF=42, RXQ_OVFL=40, TIMESTAMP=29, TIMESTAMPNS=35, SELECT_ERR_QUEUE=45, BUSY_POLL=46, PASSPIDFD=76,
        PASSRIGHTS=83, RCVPRIORITY=82, ZEROCOPY=60, DEBUG=1, WIFI_STATUS=41, NOFCS=43, LOCK_FILTER=44,
        INCOMING_CPU=49, PREFER_BUSY_POLL=69, BUSY_POLL_BUDGET=70, RESERVE_MEM=73, TXREHASH=74, RCVMARK=75, INQ=84,
    ),
    *_of_level(socket.SOL_SOCKET, 8, TIMESTAMPING=37, MAX_PACING_RATE=47, TXTIME=61),
    *_of_level(socket.SOL_SOCKET, TIMESTAMP_NEW=63, TIMESTAMPNS_NEW=64),
    *_of_level(socket.SOL_SOCKET, 8, TIMESTAMPING_NEW=65),
)
_IP = (
    *_of_level(
        socket.IPPROTO_IP,
        MTU_DISCOVER=10, RECVERR=11, RECVTTL=12, RECVTOS=13, RECVOPTS=6, RETOPTS=7, TRANSPARENT=19, MINTTL=21,
        RECVORIGDSTADDR=20, PASSSEC=18, BIND_ADDRESS_NO_PORT=24, RECVFRAGSIZE=25, MULTICAST_IF=32, MULTICAST_TTL=33,
        MULTICAST_LOOP=34, MULTICAST_ALL=49, UNICAST_IF=50, LOCAL_PORT_RANGE=51, ROUTER_ALERT=5, CHECKSUM=23,
        RECVERR_RFC4884=26,
    ),
    *_of_level(socket.IPPROTO_IP, 40, OPTIONS=4),
)
#: What IPv4 sockets have fields for, and IPv6 sockets have as well, for their IPv4 packets.
_IP_OF_IPV6 = (*_IP, *_of_level(socket.IPPROTO_IP, TOS=1, TTL=2, PKTINFO=8))
#: Those called 2292 are of an older RFC.
_IPV6 = (
    *_of_level(
        socket.IPPROTO_IPV6,
        UNICAST_HOPS=16, MULTICAST_IF=17, MULTICAST_HOPS=18, MULTICAST_LOOP=19, MTU_DISCOVER=23, RECVERR=25,
        RECVHOPLIMIT=51, RECVTCLASS=66, TCLASS=67, RECVRTHDR=56, RECVHOPOPTS=53, RECVDSTOPTS=58, FLOWINFO_SEND=33,
        DONTFRAG=62, MULTICAST_ALL=29, AUTOFLOWLABEL=70, ADDR_PREFERENCES=72, MINHOPCOUNT=73, RECVORIGDSTADDR=74,
        TRANSPARENT=75, UNICAST_IF=76, RECVPATHMTU=60, RECVFRAGSIZE=77, RECVERR_RFC4884=31, ROUTER_ALERT_ISOLATE=30,
        FLOWINFO=11, PKTINFO_2292=2, HOPOPTS_2292=3, DSTOPTS_2292=4, RTHDR_2292=5, HOPLIMIT_2292=8,
    ),
    *_of_level(socket.IPPROTO_IPV6, 2048, HOPOPTS=54, RTHDRDSTOPTS=55, RTHDR=57, DSTOPTS=59),
)
_TCP = (
    *_of_level(
        socket.IPPROTO_TCP,
        SYNCNT=7, LINGER2=8, DEFER_ACCEPT=9, USER_TIMEOUT=18, FASTOPEN=23, NOTSENT_LOWAT=25, SAVE_SYN=27,
        FASTOPEN_CONNECT=30, FASTOPEN_NO_COOKIE=34, INQ=36, TX_DELAY=37, MAXSEG=TCP_MAXSEG, WINDOW_CLAMP=10,
        QUICKACK=12, THIN_LINEAR_TIMEOUTS=16, RTO_MAX_MS=44, RTO_MIN_US=45, DELACK_MAX_US=46,
    ),
    *_of_level(socket.IPPROTO_TCP, 16, CONGESTION=13),
    *_of_level(socket.IPPROTO_TCP, 32, FASTOPEN_KEY=33),
)
_UDP = _of_level(socket.IPPROTO_UDP, SEGMENT=103, GRO=104, NO_CHECK6_TX=101, NO_CHECK6_RX=102, ENCAP=100)
_COVERAGES = _of_level(_UDPLITE, SEND=10, RECEIVE=11)
_OF_NETLINK = _of_level(
    SOL_NETLINK,
    PKTINFO=3, BROADCAST_ERROR=4, NO_ENOBUFS=5, LISTEN_ALL_NSID=8, CAP_ACK=10, EXT_ACK=11, GET_STRICT_CHK=12,
)
#: They are set before there are rings.
_OF_PACKET = _of_level(SOL_PACKET, TX_HAS_OFF=19, QDISC_BYPASS=20, IGNORE_OUTGOING=23, VNET_HDR_SZ=24)
# fmt: on

#: Streams tell of these, but do not take them.
_NOT_OF_STREAMS = (
    *_of_level(socket.IPPROTO_IP, MULTICAST_IF=32, MULTICAST_TTL=33),
    *_of_level(socket.IPPROTO_IPV6, MULTICAST_IF=17, MULTICAST_HOPS=18),
)
_CHECKSUM_OF_RAW = _of_level(SOL_RAW, CHECKSUM=7)

_BY_FAMILY = {
    socket.AF_INET: _IP,
    socket.AF_INET6: (*_IPV6, *_IP_OF_IPV6),
    socket.AF_NETLINK: _OF_NETLINK,
    socket.AF_PACKET: _OF_PACKET,
}
_BY_PROTOCOL = {
    socket.IPPROTO_TCP: _TCP,
    _MPTCP: _TCP,
    socket.IPPROTO_UDP: _UDP,
    _UDPLITE: (*_UDP, *_COVERAGES),
}
#: Memberships (multicast.py).
_MEMBERSHIPS = tuple(
    option
    for level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6)
    for option in _of_level(level, MCAST_JOIN_GROUP=42, MCAST_BLOCK_SOURCE=43, MCAST_JOIN_SOURCE_GROUP=46)
)
#: What earlier images have: IPV6_CHECKSUM by another level, which ICMPv6 does not take.
_EARLIER = _of_level(socket.IPPROTO_IPV6, CHECKSUM=7)
#: All of them, by level and number: images can ask for no others.
KNOWN = frozenset(
    (option.level, option.name)
    for options in (_ANY, *_BY_FAMILY.values(), *_BY_PROTOCOL.values(), _MEMBERSHIPS, _CHECKSUM_OF_RAW, _EARLIER)
    for option in options
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides which options a socket has."""

    family: int
    type: int
    protocol: int

    @property
    def opaque(self) -> tuple[Opaque, ...]:
        """The options to look at beside CRIU's."""
        is_inet = self.family in (socket.AF_INET, socket.AF_INET6)
        found = (*_ANY, *_BY_FAMILY.get(self.family, ()))
        if is_inet and self.type != socket.SOCK_RAW:
            found = (*found, *_BY_PROTOCOL.get(self.protocol, ()))
        elif self.family == socket.AF_INET6:
            found = (*found, *_CHECKSUM_OF_RAW)
        # A stream's multicast settings are of no use.
        return tuple(o for o in found if o not in _NOT_OF_STREAMS) if self.type == socket.SOCK_STREAM else found
