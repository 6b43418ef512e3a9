"""The restore of the network namespaces of a tree: what is made in which order.

Sysctls first, for interfaces take theirs from ``default`` when they are made; interfaces; then, with them up,
addresses; then what needs those: routes, rules, neighbours.  Packet filters before what leads outside is joined.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.kernel import rtnetlink
from torpor.kernel.idmap import IdMap
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.netdevice import loopback_up
from torpor.kernel.netlink import Netlink
from torpor.objects.ns.model import NsRestore
from torpor.objects.ns.net import (
    addresses,
    conntrack,
    disciplines,
    ethtool,
    firewall,
    foreign,
    labels,
    links,
    mptcp,
    neighbours,
    nsids,
    outside,
    routes,
    rules,
    sysctls,
    tun,
)
from torpor.objects.ns.net.work import Work

_ACCEPT_DAD = "accept_dad"


def restore(places: Sequence[NsRestore]) -> None:
    """Fill the namespaces; nothing goes in or out yet."""
    assert places[0].context is not None
    policy = places[0].context.policies.network
    if policy.empty_net:
        # A container without a network still talks to itself; what a hook has done by now stays as it is.
        for place in places:
            if links.is_loopback_up(place.store, place.ident):
                inside(place.where, CLONE_NEWNET, loopback_up)
            foreign.restore(place)
        return
    with ExitStack() as stack:
        ours = stack.enter_context(Netlink())
        our_fd = stack.enter_context(_current()).fileno()
        works = {place.ident: _open(place, stack, ours, our_fd, weak=policy.weak_sysctls) for place in places}
        for work in works.values():
            _prepare(work, works, places[0].idmaps.groups)
        wanted = {ident: links.read(work.store, ident) for ident, work in works.items()}
        maker = links.Maker(works, wanted, _make_tun)
        maker.make()
        for work in works.values():
            _in(work, partial(_fill, work, wanted[work.ident], maker))


def connect(session: NsRestore) -> None:
    """Join what leads outside to what it belongs to there."""
    assert session.context is not None
    if not session.context.policies.network.empty_net:
        outside.connect(session.external)


def _current() -> OwnedFd:
    """The calling thread's network namespace."""
    return OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def _open(place: NsRestore, stack: ExitStack, ours: Netlink, our_fd: int, *, weak: bool) -> Work:
    connection, its_fd = inside(place.where, CLONE_NEWNET, lambda: (Netlink(), _current()))
    stack.enter_context(connection)
    stack.enter_context(its_fd)
    assert place.context is not None
    return Work(
        place.store, place.ident, connection, ours, its_fd.fileno(), our_fd, place.external, weak, place.context
    )


def _in(work: Work, action: Callable[[], None]) -> None:
    inside(work.inside_fd, CLONE_NEWNET, action)


def _prepare(work: Work, works: Mapping[int, Work], groups: IdMap) -> None:
    """What comes before interfaces."""
    if work.store.exists(kinds.NETNS.file_name(work.ident)):
        entry = load_one(work.store, kinds.NETNS, work.ident)
        _in(work, lambda: sysctls.restore_namespace(entry, groups, weak=work.weak_sysctls))
        nsids.restore(entry, work, works)
    _in(work, lambda: sysctls.restore_others(work.store, work.ident))


def _make_tun(work: Work, entry: m.net_device_entry) -> None:
    _in(work, lambda: tun.make(entry))


def _fill(work: Work, wanted: list[links.Wanted], maker: links.Maker) -> None:
    """The rest, once all interfaces are there."""
    store, ident, connection = work.store, work.ident, work.inside
    for each in wanted:
        sysctls.restore_device(each.entry, weak=work.weak_sysctls)
    sysctls.restore_others_of(store, ident, [each.entry.name for each in wanted])
    maker.join(ident)
    ethtool.restore(store, ident, {each.entry.name for each in wanted})
    with _left_alone(work, wanted):
        maker.bring_up(ident)
        for each in wanted:
            sysctls.restore_mtu(each.entry, weak=work.weak_sysctls)
        addresses.restore(store, ident, connection)
    addresses.restore_tentative(store, ident, connection)
    has_all = store.exists(kinds.TORPOR_LINK.file_name(ident))
    routes.restore(store, ident, connection, has_all=has_all)
    rules.restore(store, ident, connection)
    labels.restore(store, ident, connection)
    neighbours.restore(store, ident, connection)
    mptcp.restore(store, ident)
    disciplines.restore(store, ident, connection)
    firewall.restore(store, ident)
    conntrack.restore(store, ident)


@contextmanager
def _left_alone(work: Work, wanted: list[links.Wanted]) -> Iterator[None]:
    """Meanwhile IPv6 makes no addresses of its own, and takes those that it is given without asking the network."""
    if not work.store.exists(kinds.IFADDR.file_name(work.ident)):
        yield
        return
    modes: dict[int, int] = {}
    saved = {each.entry.ifindex: each.saved for each in wanted if each.saved is not None}
    for link in rtnetlink.read_links(work.inside):
        mode = rtnetlink.addr_gen_mode(link)
        if mode is None:
            continue
        as_saved = rtnetlink.addr_gen_mode(saved[link.index]) if link.index in saved else None
        modes[link.index] = mode if as_saved is None else as_saved
        _set_mode(work, link.index, rtnetlink.IN6_ADDR_GEN_MODE_NONE)
    paths = [f"ipv6/conf/{name}/{_ACCEPT_DAD}" for name in ("all", *(each.entry.name for each in wanted))]
    before = {path: value for path in paths if (value := sysctls.read(path)) is not None}
    for path, value in before.items():
        if int(value) > 0:
            sysctls.write(path, "0")
    yield
    for path, value in before.items():
        if int(value) > 0:
            sysctls.write(path, value)
    for index, mode in modes.items():
        if mode != rtnetlink.IN6_ADDR_GEN_MODE_NONE:
            _set_mode(work, index, mode)


def _set_mode(work: Work, index: int, mode: int) -> None:
    message = rtnetlink.link_message(index, rtnetlink.addr_gen_mode_attribute(mode))
    work.inside.request(rtnetlink.RTM_SETLINK, message)
