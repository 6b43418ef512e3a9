"""A network namespace that whoever restores makes: a container's, of its engine.

Kernel view
    As in the modules of what is in it.
Image
    ``torpor-sysctl-%u.img``, of what has been set since (``foreign_sysctls``); packet filters as of any other
    (``firewall``; ``nftables-%u.img`` never, which nobody else would read).
Restore
    sysctls that are as in a new namespace; packet filters where there are none.  What whoever made the namespace has
    set in it stays.  If the restore fails, or is killed, both are taken back.
Limits
    It is looked at while the tree runs.  Nothing is set in our own network, nor in that of process 1.  Rules, routes,
    entries of neighbours, queueing disciplines, features (``ethtool``) and interfaces that whoever restores does not
    make, and what no image holds (``uncarried``), are lost, with a warning; so are packet filters that cannot be read.
    Lost without: addresses, and the queues that a veth uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.store import load_one
from torpor.kernel import nftables, rtnetlink
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.netlink import Netlink
from torpor.objects.ns.model import NsDump, NsRestore
from torpor.objects.ns.net import (
    disciplines,
    ethtool,
    firewall,
    foreign_sysctls,
    ipsec,
    labels,
    link_kinds,
    mptcp,
    neighbours,
    routes,
    rules,
    ruleset,
    uncarried,
)
from torpor.objects.session import DumpContext

#: What an engine gives a container, and what the kernel makes by itself.
_ENGINES = frozenset(("", "veth", "macvlan", "ipvlan", "macvtap", "ipvtap", "netkit"))
_FALLBACKS = frozenset(("tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"))
_FILTERS = (kinds.TORPOR_NFT, kinds.IPTABLES, kinds.IP6TABLES)


class Seen:
    """Of a dump: which network namespace has been looked at, and what of it is carried."""

    def __init__(self, context: DumpContext) -> None:
        self.link = ""
        self.settings: dict[str, str] = {}
        self.nft: list[tuple[int, bytes]] = []
        self.legacy: list[tuple[ImageKind[m.Message], bytes]] = []


def look(context: DumpContext, pid: Pid, pidfd: int) -> None:
    """What has been set in the network namespace of *pid*, behind *pidfd*, if that is not ours.  Losses are told."""
    if not _is_shared(pid):
        inside(pidfd, CLONE_NEWNET, lambda: _look(context.part(Seen), pid))


def losses(pid: Pid, pidfd: int) -> list[str]:
    """What is lost of the network namespace of *pid*, behind *pidfd*."""
    return [] if _is_shared(pid) else inside(pidfd, CLONE_NEWNET, lambda: [*_filters(pid)[2], *_not_made_again()])


def _look(seen: Seen, pid: Pid) -> None:
    seen.link = _link()
    seen.settings = foreign_sysctls.look()
    seen.nft, seen.legacy, lost = _filters(pid)
    for loss in (*lost, *_not_made_again()):
        log.warn(loss)


def _filters(pid: Pid) -> tuple[list[tuple[int, bytes]], list[tuple[ImageKind[m.Message], bytes]], list[str]]:
    """Those of nftables, the listings of those of old, and what of either is lost."""
    lost = []
    nft = firewall.read_nft()
    if not ruleset.can_be_replayed(nft):
        nft = []
        lost.append("packet filters of nftables are lost: they have chains without a name")
    try:
        return nft, firewall.read_legacy(pid), lost
    except RefusedError as error:
        return nft, [], [*lost, f"packet filters are lost: {error}"]


def _not_made_again() -> Iterator[str]:
    found = []
    with suppress(KernelError), Netlink() as connection:
        links = rtnetlink.read_links(connection)
        names = [link.name for link in links if link.kind not in _ENGINES and link.name not in _FALLBACKS]
        found += [f"{', '.join(names)} (interfaces)"] if names else []
        counts = {
            "policy rules": rules.count_added(connection),
            "routes": routes.count_entered(connection),
            "entries of neighbours": neighbours.count_entered(connection, link_kinds.own_addresses(links)),
            "queueing disciplines": disciplines.count_attached(connection, links),
            "labels of addresses": labels.count_changed(connection),
            "endpoints and limits of MPTCP": mptcp.count_entered(),
        }
        found += [f"{what} ({count})" for what, count in counts.items() if count]
        found += [what for what, _ in (*uncarried.found(connection, links), *ipsec.found())]
        changed = ethtool.changed(links)
        found += [f"features of {', '.join(changed)} (ethtool)"] if changed else []
        yield from uncarried.losses(connection)
    if found:
        yield f"of the network that whoever restores makes is lost what they do not make themselves: {', '.join(found)}"


def _link() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def _is_shared(pid: Pid) -> bool:
    """Whether the network of *pid* is our own, or process 1's."""
    its = os.readlink(f"/proc/{pid}/ns/net")
    for other in ("self", "1"):
        with suppress(OSError):  # not ours to look at
            if its == os.readlink(f"/proc/{other}/ns/net"):
                return True
    return False


def dump(session: NsDump) -> None:
    """The images of what has been seen, if it was in this namespace."""
    assert session.context is not None
    seen = session.context.part(Seen)
    if not seen.link or inside(session.pidfd, CLONE_NEWNET, _link) != seen.link:
        return
    foreign_sysctls.dump(session, seen.settings)
    if seen.nft:
        ruleset.dump(session.store, session.ident, seen.nft)
    for kind, text in seen.legacy:
        firewall.store_text(session.store, kind, session.ident, text)


def restore(session: NsRestore) -> None:
    """In the namespace that the tree is in by now."""
    store, ident = session.store, session.ident
    has_filters = any(store.exists(kind.file_name(ident)) for kind in _FILTERS)
    name = kinds.NETNS.file_name(ident)
    if not has_filters and not store.exists(kinds.TORPOR_SYSCTL.file_name(ident)):
        return
    if store.exists(name) and not load_one(store, kinds.NETNS, ident).HasField("ext_key"):
        return  # of a namespace of the tree's own: they have all that was in it
    if _is_shared(Pid(session.pid)):
        log.warn("what was set in the tree's network is not set in this machine's own: sysctls, packet filters")
        return
    foreign_sysctls.restore(session)
    if not has_filters:
        return
    inside(session.where, CLONE_NEWNET, lambda: _restore_filters(session))


def _restore_filters(session: NsRestore) -> None:
    """By a thread that is in the namespace."""
    assert session.context is not None
    if firewall.are_there(Pid(session.pid)):
        log.warn("packet filters stay as whoever made the network has set them: those of the images are left out")
        return
    with OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
        with nftables.open_socket() as connection:
            steps = firewall.steps_back(session.store, session.ident, netns.fileno(), connection)
            session.context.take_back(steps)
        firewall.restore(session.store, session.ident)
