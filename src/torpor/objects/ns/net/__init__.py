"""network namespace: interfaces, addresses, routes, rules, neighbours, sysctls, packet filters, followed connections.

Kernel view
    rtnetlink(7) and nfnetlink through sockets made in the namespace, and ``/proc/sys/net`` as a thread in it sees it.
Image
    ``net_device_entry`` per interface, ``netns_entry``; tables as netlink messages and as the tools' listings (the
    modules say which).  With ``--empty-ns net`` only the followed connections, and whether ``lo`` is up.
Restore
    The root puppet is cloned with a new namespace, which a thread of ours fills from inside.  What leads outside
    (``--external veth[..]``, ``macvlan[..]``, ``netdev[..]``) is made together with ours.
Limits
    Named in the modules.

A restore asks for ``in_images`` always; what makes networks is loaded where there is one.
"""

from __future__ import annotations

from torpor.images import kinds
from torpor.images.store import ImageStore


def in_images(store: ImageStore) -> set[int]:
    """The numbers of the network namespaces that the images have."""
    numbers = [kinds.NETNS.parse_file_name(name) for name in store.names()]
    return {number for number in numbers if isinstance(number, int)}
