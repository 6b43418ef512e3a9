"""Connections that a network namespace's packet filters follow, and those that they expect.

Kernel view
    ctnetlink's IPCTNL_MSG_CT_GET and IPCTNL_MSG_EXP_GET.
Image
    ``netns-ct-%u.img`` and ``netns-exp-%u.img``: the kernel's messages.
Restore
    Sent back.  TCP connections are followed liberally from then on, for packets may have been lost meanwhile.
Limits
    One that the kernel does not take is left out with a warning: it is found anew by the next packet.
"""

from __future__ import annotations

import errno

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.netlink import NETLINK_NETFILTER, NLM_F_CREATE
from torpor.kernel.uapi.nfnetlink_conntrack import CTA_PROTOINFO, CTA_PROTOINFO_TCP
from torpor.objects.ns.net import raw, sysctls

_COUNT = "netfilter/nf_conntrack_count"
_CTNETLINK, _CTNETLINK_EXP = 1 << 8, 2 << 8
_NEW, _GET = 0, 1
_NFGENMSG_SIZE = 4
_TCP_FLAGS = (4, 5)  # of the original and the reply direction
_BE_LIBERAL = 0x08

_TABLES: tuple[tuple[ImageKind[m.Message], int], ...] = (
    (kinds.NETNS_CT, _CTNETLINK),
    (kinds.NETNS_EXP, _CTNETLINK_EXP),
)


def dump(store: ImageStore, ident: int) -> None:
    """Write the connections followed and those expected of the thread's namespace; no image where there are none."""
    if sysctls.read(_COUNT) == "0":
        return  # to list nothing, the kernel looks at all connections of the machine
    for kind, subsystem in _TABLES:
        try:
            found = netlink.dump(NETLINK_NETFILTER, subsystem | _GET, bytes(_NFGENMSG_SIZE))
        except (KernelError, OSError):
            continue  # a kernel without
        if found:
            raw.store(store, kind, ident, [(subsystem | _NEW, payload) for payload in found])


def restore(store: ImageStore, ident: int) -> None:
    """Enter the connections of both images in the thread's namespace; what it does not take, a warning tells."""
    for kind, subsystem in _TABLES:
        found = raw.load(store, kind, ident, [(subsystem | _NEW, _NFGENMSG_SIZE)])
        if not found:
            continue
        with Netlink(NETLINK_NETFILTER) as connection:
            for number, payload in found:
                try:
                    connection.request(number, _liberal(payload) if kind is kinds.NETNS_CT else payload, NLM_F_CREATE)
                except KernelError as error:
                    if error.errno != errno.EEXIST:
                        log.warn(f"a followed connection is left out: {error}")


def _liberal(payload: bytes) -> bytes:
    """With the flag that lets TCP's sequence numbers be what they may."""
    message = bytearray(payload)
    tcp = netlink.find(message, _NFGENMSG_SIZE, (CTA_PROTOINFO, CTA_PROTOINFO_TCP))
    if tcp is not None:
        for number in _TCP_FLAGS:
            place = netlink.find(message[: tcp[1]], tcp[0], (number,))
            if place is not None:
                # Two bytes (struct nf_ct_tcp_flags): the flags, and the mask of those that are to be set.
                for at in range(*place):
                    message[at] |= _BE_LIBERAL
    return bytes(message)
