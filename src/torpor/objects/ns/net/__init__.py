"""network namespace: interfaces, addresses, routes, rules, neighbours, sysctls, packet filters, followed connections.

Kernel view
    rtnetlink(7) and nfnetlink through sockets made in the namespace, and ``/proc/sys/net`` as a thread in it sees it.
Image
    ``net_device_entry`` per interface, ``netns_entry``; tables as netlink messages and as the tools' listings (the
    modules say which).  With ``--empty-ns net`` only the followed connections.
Restore
    The root puppet is cloned with a new namespace, which a thread of ours fills from inside.  What leads outside
    (``--external veth[..]``, ``macvlan[..]``, ``netdev[..]``) is made together with ours.
Limits
    Named in the modules.
"""

from __future__ import annotations

from torpor.objects.ns.net.build import connect, in_images, restore
from torpor.objects.ns.net.look import check, dump

__all__ = ["check", "connect", "dump", "in_images", "restore"]
