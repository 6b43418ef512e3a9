"""The outer ends of interfaces that lead out of the tree: joined to what they belong to in our own namespace.

``--external veth[INNER]:OUTER@BRIDGE``: OUTER becomes a port of BRIDGE, and is brought up.  Only once all sockets are
there: a packet that finds its connection missing would be answered by a reset.  Without a bridge the end is left to
whoever restores.
"""

from __future__ import annotations

from torpor.base.errors import RestoreError
from torpor.kernel import netlink, rtnetlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import RTM_SETLINK, link_message
from torpor.kernel.uapi.if_h import IFF_UP


def connect(external: tuple[str, ...]) -> None:
    """Join all that have a bridge.  RestoreError where there is none of that name."""
    wanted = [text.partition("]:")[2] for text in external if text.startswith("veth[")]
    pairs = [each.partition("@")[::2] for each in wanted if "@" in each]
    if not pairs:
        return
    with Netlink() as ours:
        numbers = {link.name: link.index for link in rtnetlink.read_links(ours)}
        for outer, bridge in pairs:
            if outer not in numbers:
                continue  # of an interface that the images do not have
            if bridge not in numbers:
                raise RestoreError(f"there is no bridge {bridge}, which {outer} is to become a port of")
            master = netlink.number(rtnetlink.IFLA_MASTER, numbers[bridge])
            ours.request(RTM_SETLINK, link_message(numbers[outer], master, flags=IFF_UP, change=IFF_UP))
