"""Interfaces of a network namespace.

Kernel view
    RTM_GETLINK; ``/proc/net/dev_mcast`` for the link-layer multicast addresses that one was given to receive.
Image
    ``net_device_entry``.  ``torpor-link-%u.img``, ours: the kernel's own messages, which say more (queue length, bridge
    options, kinds that CRIU does not know), and ``torpor_multicast``; other readers do without.
Restore
    Made under their own numbers and still down, those before that others lie on; then what belongs together is joined;
    then they are brought up.
Limits
    XDP programs are refused.  Lost without a word is what only sysfs tells and sets (``/sys/class/net/NAME``: packet
    steering of queues, ``gro_flush_timeout``, ``threaded``), and the state of a bridge's port that was set by hand.  A
    bridge whose address was that of a port keeps it, whatever becomes of its ports.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.errors import KernelError, RefusedError, RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore, iter_entries, store_all
from torpor.kernel import netdevice, netlink, rtnetlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import RTM_NEWLINK, RTM_SETLINK, Link, link_message
from torpor.kernel.uapi.if_h import IFF_UP
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_EXCL
from torpor.objects.ns.net import given, link_kinds, raw, sysctls
from torpor.objects.ns.net.link_options import receive, set_limits, set_names, set_options, set_token
from torpor.objects.ns.net.work import Work, external_value

_NAME_MAX = 15
_FLAGS = (
    IFF_UP | rtnetlink.IFF_DEBUG | rtnetlink.IFF_NOTRAILERS | rtnetlink.IFF_NOARP | rtnetlink.IFF_PROMISC
    | rtnetlink.IFF_ALLMULTI | rtnetlink.IFF_MULTICAST | rtnetlink.IFF_DYNAMIC
)  # fmt: skip
_ETHERNET_ADDRESS = 6
_XDP_ATTACHED = 2

#: Fills in ``entry.tun`` of a device; makes the device of an entry.
TunFiller = Callable[[m.net_device_entry, Link], None]
TunMaker = Callable[[Work, m.net_device_entry], None]


# -- dump ------------------------------------------------------------------------------------------------------------


def check(links: list[Link], external: tuple[str, ...], pid: Pid) -> None:
    """RefusedError for interfaces that cannot be made again."""
    for link in links:
        if not link_kinds.can_be_made(link) and external_value(external, "netdev", link.name) is None:
            what = f"of kind {link.kind}" if link.kind else "that is hardware"
            raise RefusedError(
                f"the network namespace of pid {pid} has the interface {link.name}, {what}",
                hint=f"--external netdev[{link.name}] leaves it to whoever restores to give it",
            )
        if any(netlink.parse_attributes(link.attributes.get(rtnetlink.IFLA_XDP, b"")).get(_XDP_ATTACHED, b"")):
            raise RefusedError(
                f"the interface {link.name} in the network namespace of pid {pid} has an XDP program",
                hint=f"detach it: ip link set {link.name} xdp off",
            )


def dump(store: ImageStore, ident: int, links: list[Link], ids: dict[int, int], fill_tun: TunFiller) -> None:
    """All of *links*.

    *ids*: the image's id of each namespace of the tree by the number by which this one knows it.  *fill_tun* fills in
    what is to be known of a tun device.
    """
    carried = [link for link in links if not link_kinds.is_automatic(link)]
    entries = []
    received = netdevice.multicast()
    for link in carried:
        entry = _entry(link, ident, ids)
        entry.torpor_multicast.extend(received.get(link.index, ()))
        if link.kind == "macvlan":
            link_kinds.dump_macvlan(entry, link.data)
        elif link.kind == "sit":
            link_kinds.dump_sit(entry, link.data)
        elif link.kind == "tun":
            fill_tun(entry, link)
        entries.append(entry)
    store_all(store, kinds.NETDEV, entries, ident)
    raw.store(store, kinds.TORPOR_LINK, ident, [(RTM_NEWLINK, link.payload) for link in carried])


def dump_loopback(store: ImageStore, ident: int, links: list[Link]) -> None:
    """The loopback interface alone, whose state is the namespace's own where others give it all else."""
    store_all(store, kinds.NETDEV, [_entry(each, ident, {}) for each in links if _is_loopback(each)], ident)


def _is_loopback(link: Link) -> bool:
    return link.type == rtnetlink.ARPHRD_LOOPBACK


def _entry(link: Link, ident: int, ids: dict[int, int]) -> m.net_device_entry:
    entry = m.net_device_entry(
        type=link_kinds.type_of(link), ifindex=link.index, mtu=link.number(rtnetlink.IFLA_MTU), flags=link.flags,
        name=link.name, peer_ifindex=link.link or link.index,
    )  # fmt: skip
    if link.link_netnsid is None:
        entry.peer_nsid = ident
    elif link.link_netnsid in ids:
        entry.peer_nsid = ids[link.link_netnsid]
    address = link.attributes.get(rtnetlink.IFLA_ADDRESS)
    if address and not _is_loopback(link):
        entry.address = address
    master = link.number(rtnetlink.IFLA_MASTER)
    if master:
        entry.master = master
    sysctls.dump_device(entry)
    return entry


# -- restore ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wanted:
    """An interface to be made: the image's entry, and the kernel's words where the images have them."""

    ident: int
    entry: m.net_device_entry
    saved: Link | None = None
    is_made: bool = False

    @property
    def kind(self) -> str:
        """The rtnetlink kind, "" where it is not known."""
        if self.saved is not None:
            return self.saved.kind
        return link_kinds.KIND_OF_TYPE.get(self.entry.type, "")

    @property
    def has_peer_inside(self) -> bool:
        """Whether the interface that it belongs to is in a namespace of the tree."""
        entry = self.entry
        if not entry.HasField("peer_nsid"):
            return False
        return entry.peer_nsid != self.ident or entry.peer_ifindex not in (0, entry.ifindex)


def read(store: ImageStore, ident: int) -> list[Wanted]:
    """The interfaces in the images; ImageError for one that cannot be."""
    if not store.exists(kinds.NETDEV.file_name(ident)):
        return []
    expected = [(RTM_NEWLINK, rtnetlink.ifinfomsg.size)]
    messages = raw.load(store, kinds.TORPOR_LINK, ident, expected)
    saved = {link.index: link for link in [rtnetlink.parse_link(payload) for _, payload in messages]}
    found = []
    for each in iter_entries(store, kinds.NETDEV, ident):
        entry = each.message
        name = entry.name
        if not name or len(name.encode()) > _NAME_MAX or name in (".", "..", "all", "default") or "/" in name:
            raise ImageError(f"{kinds.NETDEV.file_name(ident)}: {name!r} is no name of an interface")
        known = saved.get(entry.ifindex)
        found.append(Wanted(ident, entry, known if known is not None and known.name == name else None))
    return found


def is_loopback_up(store: ImageStore, ident: int) -> bool:
    """Whether it was; as for every container where the images do not say, for a runtime brings it up."""
    found = [each.entry.flags for each in read(store, ident) if each.entry.type == m.nd_type.LOOPBACK]
    return not found or bool(found[0] & IFF_UP)


class Maker:
    """Makes the interfaces of all network namespaces of a tree, which may be peers of each other."""

    def __init__(self, works: dict[int, Work], wanted: dict[int, list[Wanted]], make_tun: TunMaker) -> None:
        self._works = works
        self._wanted = wanted
        self._make_tun = make_tun
        self._given = {ident: given.find(work) for ident, work in works.items()}
        self._by_index = {(ident, each.entry.ifindex): each for ident, found in wanted.items() for each in found}

    def make(self) -> None:
        """All of them, down, those first that others lie on."""
        todo = [each for found in self._wanted.values() for each in found]
        while todo:
            later = []
            for each in todo:
                if each.is_made:
                    continue
                if self._must_wait(each):
                    later.append(each)
                else:
                    self._make_one(each)
            if len(later) == len(todo):
                raise ImageError(f"the interface {later[0].entry.name} lies on one that is not in the images")
            todo = later

    def _must_wait(self, each: Wanted) -> bool:
        if each.kind in ("", "veth", "tun") or not each.has_peer_inside:
            return False
        below = self._by_index.get((each.entry.peer_nsid, each.entry.peer_ifindex))
        return below is None or not below.is_made

    def _make_one(self, each: Wanted) -> None:
        entry, work = each.entry, self._works[each.ident]
        try:
            if entry.type == m.nd_type.LOOPBACK:
                self._set(work, entry.name, each)
            elif entry.type == m.nd_type.TUN:
                self._make_tun(work, entry)
                self._set(work, entry.name, each)
            elif (there := self._given[each.ident].get(entry.name)) is not None:
                self._take_given(work, each, there)
            elif (ours := external_value(work.external, "netdev", entry.name)) is not None:
                self._move_in(work, ours or entry.name, each)
            elif each.kind == "veth":
                self._make_veth(work, each)
            elif each.kind in link_kinds.REPLAYED:
                self._make_plain(work, each)
            else:
                raise RestoreError(
                    f"the interface {entry.name} is not of a kind that can be made",
                    hint=f"give one of ours by --external netdev[{entry.name}]:OURS",
                )
        except KernelError as error:
            notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
            raise RestoreError(f"the interface {entry.name} cannot be made: {error}{notes}") from error
        each.is_made = True

    def _take_given(self, work: Work, each: Wanted, index: int) -> None:
        """One that whoever restores has put in there."""
        if index != each.entry.ifindex and not link_kinds.is_named_by_kernel(each.entry.name):
            given.renumber(work, each.entry.name, index, each.entry.ifindex)
        self._set(work, each.entry.name, each)

    def _set(self, work: Work, name: str, each: Wanted) -> None:
        """Properties of one that is there; CRIU's images do not know the number of one that others have made."""
        work.inside.request(RTM_SETLINK, link_message(0, netlink.text(rtnetlink.IFLA_IFNAME, name), *_common(each)))

    def _move_in(self, work: Work, ours: str, each: Wanted) -> None:
        """One of our own namespace, under its name and number in the images."""
        index = _outside_index(work, ours, each)
        work.outside.request(
            RTM_NEWLINK,
            link_message(
                index,
                netlink.text(rtnetlink.IFLA_IFNAME, each.entry.name),
                netlink.number(rtnetlink.IFLA_NEW_IFINDEX, each.entry.ifindex),
                netlink.number(rtnetlink.IFLA_NET_NS_FD, work.inside_fd),
                *_common(each),
            ),
        )
        given.lend(work, ours, each.entry.name)

    def _make_veth(self, work: Work, each: Wanted) -> None:
        entry = each.entry
        peer = self._by_index.get((entry.peer_nsid, entry.peer_ifindex)) if each.has_peer_inside else None
        outside = external_value(work.external, "veth", entry.name)
        if outside and "@" in outside:
            _outside_index(work, outside.partition("@")[2], each)
        if peer is not None and peer.kind == "veth":
            far = link_message(
                peer.entry.ifindex,
                netlink.text(rtnetlink.IFLA_IFNAME, peer.entry.name),
                netlink.number(rtnetlink.IFLA_NET_NS_FD, self._works[peer.ident].inside_fd),
                *_common(peer),
            )
        elif outside:
            far = link_message(
                0,
                netlink.text(rtnetlink.IFLA_IFNAME, outside.partition("@")[0]),
                netlink.number(rtnetlink.IFLA_NET_NS_FD, work.outside_fd),
            )
        else:
            raise RestoreError(
                f"the peer of the interface {entry.name} is in a network namespace that is not in the images",
                hint=f"say how it is to be called in ours: --external veth[{entry.name}]:NAME, or NAME@BRIDGE",
            )
        self._create(work.inside, each, "veth", netlink.nested(rtnetlink.VETH_INFO_PEER, far))
        if peer is not None:
            peer.is_made = True

    def _make_plain(self, work: Work, each: Wanted) -> None:
        """One of a kind that needs nothing but its driver's words, and perhaps an interface that it lies on."""
        data = _data(each)
        below = external_value(work.external, each.kind, each.entry.name) if each.kind in link_kinds.ON_TOP else None
        if below is not None:
            index = netlink.number(rtnetlink.IFLA_LINK, _outside_index(work, below, each))
            target = netlink.number(rtnetlink.IFLA_NET_NS_FD, work.inside_fd)
            self._create(work.outside, each, each.kind, data, index, target)
        elif each.kind == "bridge":
            self._create(work.inside, each, each.kind, b"")
            set_options(work, each.entry.ifindex, each.entry.name, rtnetlink.IFLA_INFO_DATA, data)
        elif each.kind not in link_kinds.ON_TOP:
            self._create(work.inside, each, each.kind, data)
        elif each.has_peer_inside:
            index = netlink.number(rtnetlink.IFLA_LINK, each.entry.peer_ifindex)
            target = netlink.number(rtnetlink.IFLA_NET_NS_FD, work.inside_fd)
            self._create(self._works[each.entry.peer_nsid].inside, each, each.kind, data, index, target)
        else:
            raise RestoreError(
                f"the {each.kind} interface {each.entry.name} lies on one that is not in the images",
                hint=f"say which of ours takes its place: --external {each.kind}[{each.entry.name}]:NAME",
            )

    def _create(self, connection: Netlink, each: Wanted, kind: str, data: bytes, *more: bytes) -> None:
        info = netlink.nested(
            rtnetlink.IFLA_LINKINFO,
            netlink.text(rtnetlink.IFLA_INFO_KIND, kind),
            netlink.nested(rtnetlink.IFLA_INFO_DATA, data) if data else b"",
        )
        name = netlink.text(rtnetlink.IFLA_IFNAME, each.entry.name)
        message = link_message(each.entry.ifindex, name, *_common(each), *more, info)
        connection.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL)

    # -- once all are made ---------------------------------------------------------------------------------------

    def join(self, ident: int) -> None:
        """Ports to their bridges, and what can be said only of an interface that is there."""
        work = self._works[ident]
        for each in self._wanted[ident]:
            if each.entry.HasField("master"):
                if (ident, each.entry.master) not in self._by_index:
                    raise ImageError(f"the interface {each.entry.name} belongs to one that is not in the images")
                master = netlink.number(rtnetlink.IFLA_MASTER, each.entry.master)
                work.inside.request(RTM_SETLINK, link_message(each.entry.ifindex, master))
        for each in self._wanted[ident]:
            if each.saved is not None:
                _set_port(work, each.saved)
                set_names(work, each.saved)
                set_token(work, each.saved)
            receive(each.entry)

    def bring_up(self, ident: int) -> None:
        """All flags as they were."""
        work = self._works[ident]
        there = {link.name: link for link in rtnetlink.read_links(work.inside)}
        for each in sorted(self._wanted[ident], key=lambda each: each.kind in link_kinds.ON_TOP):
            index = there[each.entry.name].index
            if each.saved is not None and not self._is_given(work, each.entry.name):
                set_limits(work, there[each.entry.name], each.saved)
            work.inside.request(RTM_SETLINK, link_message(index, flags=each.entry.flags & _FLAGS, change=_FLAGS))
        for link in rtnetlink.read_links(work.inside):
            wanted = self._by_index.get((ident, link.index))
            mtu = link.number(rtnetlink.IFLA_MTU)
            if wanted is not None and wanted.entry.name == link.name and mtu != wanted.entry.mtu:
                # A bridge takes its ports' until somebody has said otherwise.
                work.inside.request(
                    RTM_SETLINK, link_message(link.index, netlink.number(rtnetlink.IFLA_MTU, wanted.entry.mtu))
                )

    def _is_given(self, work: Work, name: str) -> bool:
        return name in self._given[work.ident] or external_value(work.external, "netdev", name) is not None


def _set_port(work: Work, saved: Link) -> None:
    """As a port of a bridge, whose other ports it may name."""
    if _string(saved.info.get(rtnetlink.IFLA_INFO_SLAVE_KIND)) == "bridge":
        data = link_kinds.settable_port_data(saved.info.get(rtnetlink.IFLA_INFO_SLAVE_DATA, b""))
        set_options(work, saved.index, saved.name, rtnetlink.IFLA_INFO_SLAVE_DATA, data)


def _outside_index(work: Work, name: str, each: Wanted) -> int:
    """The number of an interface of ours."""
    for link in rtnetlink.read_links(work.outside):
        if link.name == name:
            return link.index
    raise RestoreError(
        f"there is no interface {name}, which --external names for {each.entry.name}", hint="make it, or name another"
    )


def _common(each: Wanted) -> list[bytes]:
    """What holds for all kinds."""
    entry, saved = each.entry, each.saved
    found = []
    if entry.mtu:
        found.append(netlink.number(rtnetlink.IFLA_MTU, entry.mtu))
    if len(entry.address) == _ETHERNET_ADDRESS:
        found.append(netlink.attribute(rtnetlink.IFLA_ADDRESS, entry.address))
    if saved is not None:
        found.append(netlink.number(rtnetlink.IFLA_TXQLEN, saved.number(rtnetlink.IFLA_TXQLEN)))
        if saved.number(rtnetlink.IFLA_GROUP):
            found.append(netlink.number(rtnetlink.IFLA_GROUP, saved.number(rtnetlink.IFLA_GROUP)))
        if each.kind:
            for number in (rtnetlink.IFLA_NUM_TX_QUEUES, rtnetlink.IFLA_NUM_RX_QUEUES):
                if saved.number(number):
                    found.append(netlink.number(number, saved.number(number)))
    return found


def _data(each: Wanted) -> bytes:
    if each.saved is not None:
        return link_kinds.settable_data(each.kind, each.saved.data)
    if each.kind == "macvlan":
        return link_kinds.macvlan_data(each.entry)
    if each.kind == "sit":
        return link_kinds.sit_data(each.entry)
    return b""


def _string(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")
