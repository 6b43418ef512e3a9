"""Endpoints of MPTCP, and how many subflows a connection may have: ip-mptcp(8).

Kernel view
    MPTCP_PM_CMD_GET_ADDR and MPTCP_PM_CMD_GET_LIMITS of the generic netlink family ``mptcp_pm``.
Image
    ``torpor-mptcp-%u.img``, ours: MPTCP_PM_CMD_ADD_ADDR and MPTCP_PM_CMD_SET_LIMITS, as types of messages, each with
    what follows the header of netlink; none where all is as in a new namespace.  CRIU does not carry them.
Restore
    Once there are the addresses, under the same numbers.
Limits
    Endpoints that the kernel made by itself of what a peer has said (``implicit``) are its own.  One that this kernel
    does not take is left out with a warning.
"""

from __future__ import annotations

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.genetlink import command, families, genlmsghdr
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.mptcp import (
    MPTCP_PM_ADDR_ATTR_FLAGS,
    MPTCP_PM_ADDR_FLAG_IMPLICIT,
    MPTCP_PM_ATTR_ADDR,
    MPTCP_PM_ATTR_RCV_ADD_ADDRS,
    MPTCP_PM_ATTR_SUBFLOWS,
    MPTCP_PM_CMD_ADD_ADDR,
    MPTCP_PM_CMD_GET_ADDR,
    MPTCP_PM_CMD_GET_LIMITS,
    MPTCP_PM_CMD_SET_LIMITS,
)
from torpor.kernel.uapi.netlink import NETLINK_GENERIC
from torpor.objects.ns.net import raw

_FAMILY = "mptcp_pm"
#: Of a new namespace (net/mptcp/pm_netlink.c): addresses that are accepted from peers, subflows.
_USUAL = (0, 2)


def dump(store: ImageStore, ident: int) -> None:
    """Those of the thread's namespace; no image where there are none."""
    found = _read()
    if found:
        raw.store(store, kinds.TORPOR_MPTCP, ident, found)


def count_entered() -> int:
    """How many the thread's namespace has, limits that somebody has set being one."""
    return len(_read())


def _read() -> list[tuple[int, bytes]]:
    with Netlink(NETLINK_GENERIC) as connection:
        family = families(connection).get(_FAMILY)
        if family is None:
            return []
        found = [(MPTCP_PM_CMD_SET_LIMITS, payload) for payload in _limits(connection, family)]
        endpoints = connection.dump(family, command(MPTCP_PM_CMD_GET_ADDR))
    return [*found, *((MPTCP_PM_CMD_ADD_ADDR, payload) for payload in endpoints if not _is_implicit(payload))]


def _limits(connection: Netlink, family: int) -> list[bytes]:
    return [
        payload for payload in connection.ask(family, command(MPTCP_PM_CMD_GET_LIMITS)) if limits_of(payload) != _USUAL
    ]


def limits_of(payload: bytes) -> tuple[int, int]:
    """(addresses that are accepted, subflows) of an answer."""
    attributes = netlink.parse_attributes(payload[genlmsghdr.size :])
    accepted, subflows = (
        int.from_bytes(attributes.get(number, b""), "little")
        for number in (MPTCP_PM_ATTR_RCV_ADD_ADDRS, MPTCP_PM_ATTR_SUBFLOWS)
    )
    return accepted, subflows


def _is_implicit(payload: bytes) -> bool:
    attributes = netlink.parse_attributes(payload[genlmsghdr.size :])
    endpoint = netlink.parse_attributes(attributes.get(MPTCP_PM_ATTR_ADDR, b""))
    flags = int.from_bytes(endpoint.get(MPTCP_PM_ADDR_ATTR_FLAGS, b""), "little")
    return bool(flags & MPTCP_PM_ADDR_FLAG_IMPLICIT)


def restore(store: ImageStore, ident: int) -> None:
    """Set the limits and enter the endpoints in the thread's namespace; what it does not take, a warning tells."""
    expected = [(number, genlmsghdr.size) for number in (MPTCP_PM_CMD_SET_LIMITS, MPTCP_PM_CMD_ADD_ADDR)]
    found = raw.load(store, kinds.TORPOR_MPTCP, ident, expected)
    if not found:
        return
    with Netlink(NETLINK_GENERIC) as connection:
        family = families(connection).get(_FAMILY)
        if family is None:
            log.warn("endpoints and limits of MPTCP are left out: this kernel has none (CONFIG_MPTCP)")
            return
        for number, payload in found:
            what = "the limits" if number == MPTCP_PM_CMD_SET_LIMITS else "an endpoint"
            try:
                connection.request(family, command(number, payload[genlmsghdr.size :]))
            except KernelError as error:
                notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
                log.warn(f"{what} of MPTCP cannot be set: {error}{notes}")
