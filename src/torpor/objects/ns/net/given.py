"""Interfaces that whoever restores has put into a namespace before we fill it, such as a hook of a container's runtime.

They keep their name and get the number that the images have, for addresses and routes go by it.  The kernel gives an
interface a number only as it comes into a namespace; so it leaves for a moment.
"""

from __future__ import annotations

import os

from torpor.base.fds import OwnedFd
from torpor.kernel import netlink, rtnetlink
from torpor.kernel.namespaces import CLONE_NEWNET, isolated, unshare
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
