"""The dump of a network namespace: what is asked in which order."""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.store import store_one
from torpor.kernel import rtnetlink
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.netlink import Netlink
from torpor.objects.ns.model import NsDump
from torpor.objects.ns.net import (
    addresses,
    conntrack,
    disciplines,
    ethtool,
    firewall,
    foreign,
    ipsec,
    labels,
    link_kinds,
    links,
    mptcp,
    neighbours,
    nsids,
    routes,
    rules,
    sysctls,
    tun,
    uncarried,
)
from torpor.objects.ns.net.work import external_value
from torpor.objects.policy import Policies


def check(pid: Pid, policies: Policies) -> None:
    """RefusedError for what the dump would refuse, as far as it can be seen while the namespace is in use."""
    if policies.network.empty_net:
        return

    def look() -> None:
        with Netlink() as connection:
            found = rtnetlink.read_links(connection)
            links.check(found, policies.external, pid)
            uncarried.check(pid, connection, found)
        ipsec.check(pid)
        firewall.check(pid)

    try:
        with OwnedFd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            inside(namespace.fileno(), CLONE_NEWNET, look)
    except OSError:
        return  # gone, or not ours to look at: told by whoever needs it


def losses(pid: Pid, policies: Policies) -> list[str]:
    """What the dump leaves out of the namespace that *pid* is in."""
    if policies.network.empty_net:
        return []

    def look() -> list[str]:
        with Netlink() as connection:
            found = disciplines.losses(connection, rtnetlink.read_links(connection))
            return [*found, *uncarried.losses(connection)]

    try:
        with OwnedFd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            return inside(namespace.fileno(), CLONE_NEWNET, look)
    except OSError:
        return []  # gone, or not ours to look at: told by whoever needs it


def dump(session: NsDump) -> None:
    """All images of the namespace."""
    inside(session.pidfd, CLONE_NEWNET, lambda: _dump_inside(session))
    assert session.context is not None
    if session.context.policies.network.empty_net:
        foreign.dump(session)


def _dump_inside(session: NsDump) -> None:
    store, ident = session.store, session.ident
    assert session.context is not None
    if session.context.policies.network.empty_net:
        with Netlink() as connection:
            links.dump_loopback(store, ident, rtnetlink.read_links(connection))
    else:
        with Netlink() as connection:
            found = rtnetlink.read_links(connection)
            links.check(found, session.external, session.pid)
            ipsec.check(session.pid)
            uncarried.check(session.pid, connection, found)
            for loss in uncarried.losses(connection):
                log.warn(loss)
            ids = nsids.read(connection, session.context)
            devices = session.context.part(tun.Devices)
            links.dump(store, ident, found, ids, lambda entry, link: tun.fill(entry, link, devices, ident))
            given = [link.name for link in found if external_value(session.external, "netdev", link.name) is not None]
            ethtool.dump(store, ident, {link.name for link in found} - set(given))
            addresses.dump(store, ident, connection)
            routes.dump(store, ident, connection)
            rules.dump(store, ident, connection)
            labels.dump(store, ident, connection)
            neighbours.dump(store, ident, connection, link_kinds.own_addresses(found))
            disciplines.dump(store, ident, connection, found)
        firewall.dump(store, ident, session.pid)
        mptcp.dump(store, ident)
        entry = m.netns_entry()
        nsids.dump(entry, ids)
        sysctls.dump_namespace(entry, session.idmaps.groups)
        sysctls.dump_others(store, ident)
        store_one(store, "NETNS", entry, ident)
    conntrack.dump(store, ident)
