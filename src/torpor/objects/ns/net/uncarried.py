"""What a network namespace may have and no image holds: a dump that finds any is refused, by name.

Kernel view
    One dump of each table, or a file in ``/proc/net``; whether the kernel has that part is asked before, in a way that
    loads no module.  Counters of nfacct(8) and timeouts of nfct(8) by what lists them in nfnetlink, sets of ipset(8) by
    IPSET_CMD_LIST; virtual services of ipvsadm(8) and interfaces of multicast routing by ``/proc/net``; families of
    generic netlink for foo-over-udp, ILA, L2TP, segment routing and IOAM; of bridges and vxlan RTM_GETMDB and the
    RTM_GETLINK of AF_BRIDGE; of vxlan RTM_GETTUNNEL.
Image
    None.
Restore
    None.
Limits
    Refused here: counters and timeouts that rules of iptables name, sets of ipset, services of IPVS, interfaces of
    multicast routing, permanent groups of a bridge or of vxlan (``bridge mdb``), VLANs of a bridge other than its
    default one, identifiers that vxlan lets pass (``bridge vni``), routes of MPLS, ports of foo-over-udp, mappings of
    ILA, L2TP tunnels, keys and source addresses of segment routing, namespaces and schemas of IOAM.  Elsewhere: IPsec
    (``ipsec.py``); programs of bpf(2) (``programs.py``); wireguard, macsec, gtp, which are interfaces (``links.py``).

    Lost, with a warning: nexthop objects (routes by them have their content), the arptables and ebtables of old, lists
    of iptables' ``recent``, filters of tc (``disciplines.py``).  Sets of ipset are not seen where there is no /sys.
    Helpers of nfct(8) are the whole machine's.

    Lost without a word: actions of tc that no filter uses, rules for multicast routes (``ip mrule``).

    A cache: metrics of TCP (``ip tcp_metrics``), routes that were learned.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator

from torpor.base.errors import KernelError, RefusedError
from torpor.base.ids import Pid
from torpor.kernel import netlink, rtnetlink
from torpor.kernel.genetlink import command, families, genlmsghdr
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_BRIDGE, AF_INET, AF_MPLS, AF_UNSPEC, RTM_GETLINK, RTM_GETROUTE, Link, ifinfomsg
from torpor.kernel.uapi.fou import FOU_CMD_GET
from torpor.kernel.uapi.if_bridge import (
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_UNTAGGED,
    IFLA_BRIDGE_VLAN_INFO,
    MDB_PERMANENT,
    MDBA_MDB,
    MDBA_MDB_ENTRY,
    MDBA_MDB_ENTRY_INFO,
)
from torpor.kernel.uapi.if_link import IFLA_BR_VLAN_DEFAULT_PVID, VXLAN_VNIFILTER_ENTRY
from torpor.kernel.uapi.ila import ILA_CMD_GET
from torpor.kernel.uapi.ioam6_genl import IOAM6_CMD_DUMP_NAMESPACES, IOAM6_CMD_DUMP_SCHEMAS
from torpor.kernel.uapi.ip_set import (
    IPSET_ATTR_FLAGS,
    IPSET_ATTR_PROTOCOL,
    IPSET_ATTR_SETNAME,
    IPSET_CMD_LIST,
    IPSET_FLAG_LIST_SETNAME,
)
from torpor.kernel.uapi.l2tp import L2TP_CMD_TUNNEL_GET
from torpor.kernel.uapi.netlink import NETLINK_GENERIC, NETLINK_NETFILTER
from torpor.kernel.uapi.nfnetlink import NFNL_SUBSYS_ACCT, NFNL_SUBSYS_CTNETLINK_TIMEOUT, NFNL_SUBSYS_IPSET
from torpor.kernel.uapi.nfnetlink_acct import NFACCT_NAME, NFNL_MSG_ACCT_GET
from torpor.kernel.uapi.nfnetlink_cttimeout import CTA_TIMEOUT_NAME, IPCTNL_MSG_TIMEOUT_GET
from torpor.kernel.uapi.rtnetlink import RTEXT_FILTER_BRVLAN, RTM_GETMDB, RTM_GETNEXTHOP, RTM_GETTUNNEL
from torpor.kernel.uapi.seg6_genl import SEG6_ATTR_DST, SEG6_CMD_DUMPHMAC, SEG6_CMD_GET_TUNSRC
from torpor.objects.ns.net import ebtables, programs

#: Family of generic netlink, command that lists them, what they are, what takes them away.
_FAMILIES = (
    ("fou", FOU_CMD_GET, "ports of foo-over-udp", "ip fou del"),
    ("ila", ILA_CMD_GET, "mappings of ILA", "ip ila del"),
    ("l2tp", L2TP_CMD_TUNNEL_GET, "L2TP tunnels", "ip l2tp del tunnel"),
    ("SEG6", SEG6_CMD_DUMPHMAC, "HMAC keys of segment routing", "ip sr hmac set KEYID with an empty secret"),
    ("IOAM6", IOAM6_CMD_DUMP_NAMESPACES, "namespaces of IOAM", "ip ioam namespace del"),
    ("IOAM6", IOAM6_CMD_DUMP_SCHEMAS, "schemas of IOAM", "ip ioam schema del"),
)
#: File of /proc/net, lines of its head, what the others are, what takes them away.
_FILES = (
    ("ip_vs", 3, "virtual services (IPVS)", "ipvsadm --clear"),
    ("ip_mr_vif", 1, "interfaces of multicast routing", "end what routes multicast"),
    ("ip6_mr_vif", 1, "interfaces of multicast routing", "end what routes multicast"),
)
#: Module, what lists them in nfnetlink, attribute with the name, what they are, what takes them away.
_NAMED = (
    ("nfnetlink_acct", NFNL_SUBSYS_ACCT << 8 | NFNL_MSG_ACCT_GET, NFACCT_NAME, "counters of nfacct", "nfacct flush"),
    (
        "nfnetlink_cttimeout", NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8 | IPCTNL_MSG_TIMEOUT_GET, CTA_TIMEOUT_NAME,
        "timeouts of connections", "nfct flush timeout",
    ),
)  # fmt: skip
_ARPTABLES = "arp_tables_names"
_RECENT = "/proc/thread-self/net/xt_recent"
_IPSET_MODULE = "/sys/module/ip_set"
_IPSET_PROTOCOL = 6
_nfgenmsg = struct.Struct("=BBH")
_MPLS = "/proc/sys/net/mpls"
_br_port_msg = struct.Struct("=BxxxI")
_tunnel_msg = struct.Struct("=BxxxI")
#: Interface, state, flags, VLAN.
_br_mdb_entry = struct.Struct("=IBBH")
_bridge_vlan_info = struct.Struct("=HH")
_nhmsg = struct.Struct("=BBBxI")
_MPLS_ROUTES = rtnetlink.rtmsg.pack(AF_MPLS, 0, 0, 0, 0, 0, 0, 0, 0)

#: (VLAN, flags)
Vlan = tuple[int, int]


def check(pid: Pid, connection: Netlink, links: list[Link]) -> None:
    """RefusedError where the namespace of the calling thread, which is that of *pid*, has any.

    *connection* is a socket of it, *links* all its interfaces.
    """
    for what, remedy in found(connection, links):
        raise RefusedError(
            f"the network namespace of pid {pid} has {what}, which are not carried",
            hint=f"take them down for the checkpoint ({remedy}), and set them up after the restore",
        )


def losses(connection: Netlink) -> list[str]:
    """What is left out of the dump of the socket's namespace."""
    lost = []
    objects = _dump(connection, RTM_GETNEXTHOP, _nhmsg.pack(AF_UNSPEC, 0, 0, 0))
    if objects:
        lost.append(f"nexthop objects are left out ({len(objects)}); routes by them have their content")
    tables = _read(_ARPTABLES)
    if tables:
        lost.append(f"tables of arptables are left out ({', '.join(tables)})")
    tables = ebtables.tables()
    if tables:
        lost.append(f"tables of ebtables are left out ({', '.join(tables)})")
    lists = [name for name in _names_below(_RECENT) if _read(f"xt_recent/{name}")]
    if lists:
        lost.append(f"lists of who was seen recently, by iptables, become empty ({', '.join(lists)})")
    return lost


def found(connection: Netlink, links: list[Link]) -> Iterator[tuple[str, str]]:
    """(what, what takes them away) of each kind that the thread's namespace has; arguments as for ``check``."""
    for name, head, what, remedy in _FILES:
        if has_lines(_read(name), head):
            yield what, remedy
    names = ipsets()
    if names:
        yield f"sets of ipset ({', '.join(names)})", "ipset destroy"
    yield from _named()
    yield from _of_families()
    kinds = {link.kind for link in links}
    if kinds & {"bridge", "vxlan"}:
        groups = _dump(connection, RTM_GETMDB, _br_port_msg.pack(AF_BRIDGE, 0))
        if any(permanent_groups(payload) for payload in groups):
            yield "permanent multicast groups of bridges or vxlan", "bridge mdb del"
    if "bridge" in kinds:
        yield from _of_bridges(connection, links)
    if "vxlan" in kinds and any(
        map(_has_identifiers, _dump(connection, RTM_GETTUNNEL, _tunnel_msg.pack(AF_BRIDGE, 0)))
    ):
        yield "identifiers that vxlan lets pass", "bridge vni delete"
    if os.path.exists(_MPLS) and any(
        payload[0] == AF_MPLS for payload in _dump(connection, RTM_GETROUTE, _MPLS_ROUTES)
    ):
        yield "routes of MPLS", "ip -f mpls route flush"
    yield from programs.found(links)


def _named() -> Iterator[tuple[str, str]]:
    with Netlink(NETLINK_NETFILTER) as connection:
        for module, number, name, what, remedy in _NAMED:
            # A kernel without modules has all that it has: to ask loads none.
            if os.path.exists(f"/sys/module/{module}") or not os.path.exists("/proc/modules"):
                found = _dump(connection, number, _nfgenmsg.pack(AF_UNSPEC, 0, 0))
                words = [netlink.parse_attributes(payload[_nfgenmsg.size :]).get(name, b"") for payload in found]
                names = [word.rstrip(b"\0").decode(errors="replace") for word in words]
                if names:
                    yield f"{what} ({', '.join(names)})", remedy


def _names_below(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []  # a kernel without


def _dump(connection: Netlink, kind: int, request: bytes) -> list[bytes]:
    """Nothing where the kernel does not have such a table, or keeps it from us, who cannot have filled it either."""
    try:
        return connection.dump(kind, request)
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
            return []
        raise


def _read(name: str) -> list[str]:
    try:
        with open(f"/proc/thread-self/net/{name}", encoding="ascii") as table:
            return table.read().splitlines()
    except OSError:
        return []  # a kernel without


def has_lines(lines: list[str], head: int) -> bool:
    """Whether a table has more than the *head* lines of its head."""
    return any(line.strip() for line in lines[head:])


def ipsets() -> list[str]:
    """The names of the thread's namespace's sets; the kernel is not asked where ipset is not loaded."""
    if not os.path.exists(_IPSET_MODULE):
        return []
    wanted = _nfgenmsg.pack(AF_INET, 0, 0) + netlink.attribute(IPSET_ATTR_PROTOCOL, bytes([_IPSET_PROTOCOL]))
    wanted += netlink.attribute(IPSET_ATTR_FLAGS, IPSET_FLAG_LIST_SETNAME.to_bytes(4, "big"))
    with Netlink(NETLINK_NETFILTER) as connection:
        found = _dump(connection, NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST, wanted)
    words = [netlink.parse_attributes(payload[_nfgenmsg.size :]) for payload in found]
    return [each[IPSET_ATTR_SETNAME].rstrip(b"\0").decode(errors="replace") for each in words]


def _of_families() -> Iterator[tuple[str, str]]:
    with Netlink(NETLINK_GENERIC) as connection:
        known = families(connection)
        for name, number, what, remedy in _FAMILIES:
            if name in known and _dump(connection, known[name], command(number)):
                yield what, remedy
        if "SEG6" in known and _has_source(connection, known["SEG6"]):
            yield "source addresses of segment routing", "ip sr tunsrc set ::"


def _has_source(connection: Netlink, family: int) -> bool:
    """Whether segment routing was given a source address: "::" is none."""
    try:
        answers = connection.ask(family, command(SEG6_CMD_GET_TUNSRC))
    except KernelError as error:
        if error.errno == errno.EPERM:
            return False
        raise
    return any(any(netlink.parse_attributes(each[genlmsghdr.size :]).get(SEG6_ATTR_DST, b"")) for each in answers)


def _of_bridges(connection: Netlink, links: list[Link]) -> Iterator[tuple[str, str]]:
    request = ifinfomsg.pack(AF_BRIDGE, 0, 0, 0, 0) + netlink.number(rtnetlink.IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)
    others = other_vlans(links, _dump(connection, RTM_GETLINK, request))
    if others:
        yield f"VLANs of bridges and their ports ({', '.join(others)})", "bridge vlan del, and add the default one"


def _has_identifiers(payload: bytes) -> bool:
    return VXLAN_VNIFILTER_ENTRY in netlink.parse_attributes(payload[_tunnel_msg.size :])


def permanent_groups(payload: bytes) -> int:
    """How many of the groups that an answer to RTM_GETMDB tells of are there for good."""
    attributes = netlink.parse_attributes(payload[_br_port_msg.size :])
    count = 0
    for group, entries in netlink.iter_attributes(attributes.get(MDBA_MDB, b"")):
        for kind, entry in netlink.iter_attributes(entries if group == MDBA_MDB_ENTRY else b""):
            is_whole = kind == MDBA_MDB_ENTRY_INFO and len(entry) >= _br_mdb_entry.size
            count += is_whole and _br_mdb_entry.unpack_from(entry)[1] == MDB_PERMANENT
    return count


def other_vlans(links: Iterable[Link], answers: Iterable[bytes]) -> list[str]:
    """The names of the bridges and ports whose VLANs are not those that they have by themselves.

    That is the bridge's default one, if it has any.  *answers* are those to RTM_GETLINK of AF_BRIDGE.
    """
    usual = {link.index: _default_vlans(link) for link in links if link.kind == "bridge"}
    names: dict[int, str] = {}
    wanted: dict[int, set[Vlan]] = {}
    found: dict[int, set[Vlan]] = {}
    for payload in answers:
        link = rtnetlink.parse_link(payload)
        bridge = link.number(rtnetlink.IFLA_MASTER) or link.index
        if bridge in usual:
            # The driver of a port may answer as well.
            names[link.index], wanted[link.index] = link.name, usual[bridge]
            found.setdefault(link.index, set()).update(_vlans(link))
    return [name for index, name in names.items() if found[index] != wanted[index]]


def _default_vlans(bridge: Link) -> set[Vlan]:
    number = netlink.parse_attributes(bridge.data).get(IFLA_BR_VLAN_DEFAULT_PVID, b"")
    vlan = int.from_bytes(number, "little")
    return {(vlan, BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED)} if vlan else set()


def _vlans(link: Link) -> set[Vlan]:
    found = set()
    for kind, value in netlink.iter_attributes(link.attributes.get(rtnetlink.IFLA_AF_SPEC, b"")):
        if kind == IFLA_BRIDGE_VLAN_INFO and len(value) >= _bridge_vlan_info.size:
            flags, vlan = _bridge_vlan_info.unpack_from(value)
            found.add((vlan, flags & (BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED)))
    return found
