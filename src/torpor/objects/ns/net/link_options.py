"""What can be said only of an interface that is there: options of bridges and ports, names, limits, addresses."""

from __future__ import annotations

import errno
import os

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import messages as m
from torpor.kernel import netdevice, netlink, rtnetlink
from torpor.kernel.rtnetlink import RTM_NEWLINK, RTM_SETLINK, Link, link_message
from torpor.kernel.uapi.if_link import IFLA_BRPORT_BACKUP_PORT
from torpor.kernel.uapi.netlink import NLM_F_CREATE, NLM_F_EXCL
from torpor.objects.ns.net.work import Work

#: Of an interface of any kind.  What is set together stands together: the size of GSO changes that for IPv4.
_TOGETHER = (
    (rtnetlink.IFLA_BROADCAST,),
    (rtnetlink.IFLA_LINKMODE,),
    (
        rtnetlink.IFLA_GSO_MAX_SEGS, rtnetlink.IFLA_GSO_MAX_SIZE, rtnetlink.IFLA_GRO_MAX_SIZE,
        rtnetlink.IFLA_GSO_IPV4_MAX_SIZE, rtnetlink.IFLA_GRO_IPV4_MAX_SIZE,
    ),
    (rtnetlink.IFLA_PROTO_DOWN, rtnetlink.IFLA_PROTO_DOWN_REASON),
)  # fmt: skip
#: Kinds whose carrier is what somebody says.
_OWN_CARRIER = frozenset(("dummy",))
#: sockaddr.sa_data, which it is given in.
_ADDRESS_MAX = 14


def set_options(work: Work, index: int, name: str, member: int, data: bytes) -> None:
    """Those of a bridge or a port that are not what they are anyway: a kernel refuses even to hear of some."""
    there = next(link for link in rtnetlink.read_links(work.inside) if link.index == index)
    # A port without another one for its packets says nothing of that.
    known = {IFLA_BRPORT_BACKUP_PORT: b"", **netlink.parse_attributes(there.info.get(member, b""))}
    words = [(number, value) for number, value in netlink.iter_attributes(data) if known.get(number, value) != value]
    for number, value in words:
        kind = rtnetlink.IFLA_INFO_KIND if member == rtnetlink.IFLA_INFO_DATA else rtnetlink.IFLA_INFO_SLAVE_KIND
        info = netlink.nested(
            rtnetlink.IFLA_LINKINFO,
            netlink.text(kind, "bridge"),
            netlink.nested(member, netlink.attribute(number, value)),
        )
        try:
            work.inside.request(RTM_NEWLINK, link_message(index, info))
        except KernelError as error:
            log.warn(f"option {number} of {name} stays as it is: {error}")


def set_names(work: Work, saved: Link) -> None:
    """Its alias and its other names."""
    alias = saved.attributes.get(rtnetlink.IFLA_IFALIAS)
    if alias:
        attribute = netlink.attribute(rtnetlink.IFLA_IFALIAS, alias.rstrip(b"\0"))
        work.inside.request(RTM_SETLINK, link_message(saved.index, attribute))
    names = saved.attributes.get(rtnetlink.IFLA_PROP_LIST, b"")
    others = [value for kind, value in netlink.iter_attributes(names) if kind == rtnetlink.IFLA_ALT_IFNAME]
    if others:
        words = [netlink.attribute(rtnetlink.IFLA_ALT_IFNAME, value) for value in others]
        properties = netlink.nested(rtnetlink.IFLA_PROP_LIST, *words)
        work.inside.request(rtnetlink.RTM_NEWLINKPROP, link_message(saved.index, properties), NLM_F_CREATE | NLM_F_EXCL)


def set_token(work: Work, saved: Link) -> None:
    """What its IPv6 addresses that routers offer end with: ip-token(8)."""
    token = rtnetlink.token(saved)
    if not token:
        return
    try:
        work.inside.request(RTM_SETLINK, link_message(saved.index, rtnetlink.token_attribute(token)))
    except KernelError as error:
        log.warn(f"the token of {saved.name} is left out: {error}")


def set_limits(work: Work, there: Link, saved: Link) -> None:
    """What ip-link(8) sets of any interface and is another than in *saved*: sizes of GSO and GRO, ``protodown``, ..."""
    for numbers in (*_TOGETHER, *([(rtnetlink.IFLA_CARRIER,)] if saved.kind in _OWN_CARRIER else [])):
        words = [(number, saved.attributes[number]) for number in numbers if number in saved.attributes]
        if any(there.attributes.get(number) != value for number, value in words):
            message = link_message(there.index, *[netlink.attribute(*word) for word in words])
            try:
                work.inside.request(RTM_SETLINK, message)
            except KernelError as error:
                log.warn(f"attribute {numbers[0]} of {saved.name} stays as it is: {error}")


def receive(entry: m.net_device_entry) -> None:
    """By the thread that is in its namespace: the multicast addresses that it was given to receive."""
    for address in entry.torpor_multicast:
        try:
            if len(address) > _ADDRESS_MAX:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            netdevice.add_multicast(entry.name, address)
        except FileExistsError:
            continue  # it is one of ours, and does already
        except OSError as error:
            log.warn(f"{entry.name} does not receive what is sent to {address.hex(':')}: {error.strerror}")
