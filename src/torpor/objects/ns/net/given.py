"""Interfaces that whoever restores gives: put into a namespace before we fill it, by a hook, or ours by --external.

They keep their name and get the number that the images have, for addresses and routes go by it.  The kernel gives an
interface a number only as it comes into a namespace; so it leaves for a moment.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd
from torpor.kernel import netlink, rtnetlink
from torpor.kernel.namespaces import CLONE_NEWNET, inside, isolated, unshare
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import ARPHRD_LOOPBACK, RTM_NEWLINK, link_message
from torpor.objects.ns.net.work import Work


def find(work: Work) -> dict[str, int]:
    """The numbers of those that are there, but for the loopback interface, by their names."""
    links = rtnetlink.read_links(work.inside)
    return {link.name: link.index for link in links if link.type != ARPHRD_LOOPBACK}


def renumber(work: Work, name: str, index: int, wanted: int) -> None:
    """Have the interface *name* be number *wanted* instead of *index*.  KernelError for one that cannot leave."""

    def make() -> tuple[Netlink, OwnedFd]:
        unshare(CLONE_NEWNET)
        return Netlink(), OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    elsewhere, place = isolated(make)
    with elsewhere, place:
        target = netlink.number(rtnetlink.IFLA_NET_NS_FD, place.fileno())
        work.inside.request(RTM_NEWLINK, link_message(index, target))
        there = next(link.index for link in rtnetlink.read_links(elsewhere) if link.name == name)
        back = netlink.number(rtnetlink.IFLA_NET_NS_FD, work.inside_fd)
        number = netlink.number(rtnetlink.IFLA_NEW_IFINDEX, wanted)
        elsewhere.request(RTM_NEWLINK, link_message(there, back, number))


def lend(work: Work, ours: str, name: str) -> None:
    """Have the interface *name*, which was ours as *ours*, come back if the restore fails, and not be destroyed."""
    place, home = work.context.keep(os.dup(work.inside_fd)), work.context.keep(os.dup(work.outside_fd))

    def give_back() -> None:
        try:
            inside(place.fileno(), CLONE_NEWNET, lambda: _send(name, home.fileno(), ours))
        except (TorporError, OSError) as error:
            log.warn(f"the interface {ours} is lost: {error}")

    work.context.undo.add(give_back)


def _send(name: str, target: int, new_name: str) -> None:
    with Netlink() as connection:
        index = next(link.index for link in rtnetlink.read_links(connection) if link.name == name)
        words = netlink.text(rtnetlink.IFLA_IFNAME, new_name) + netlink.number(rtnetlink.IFLA_NET_NS_FD, target)
        connection.request(RTM_NEWLINK, link_message(index, words))
