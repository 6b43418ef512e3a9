"""network namespace with nothing but a loopback interface.

Kernel view
    The interfaces and their flags, as a thread in the namespace sees them.
Image
    ``net_device_entry`` for ``lo``; an empty ``netns_entry``.
Restore
    A new namespace has a loopback interface, which is brought up if it was.
Limits
    Any other interface is refused.  Addresses added to ``lo``, routes, rules and filters are not carried.
"""

from __future__ import annotations

from torpor.base.errors import RefusedError, RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import iter_entries, store_one
from torpor.kernel import netdevice
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.objects.ns.model import NsDump, NsRestore

_LOOPBACK = 1
_MTU = 65536


def dump(session: NsDump) -> None:
    """The loopback interface; RefusedError where there are others."""
    names, flags = inside(session.pidfd, CLONE_NEWNET, lambda: (netdevice.names(), netdevice.loopback_flags()))
    others = [name for name in names if name != "lo"]
    if others:
        raise RefusedError(
            f"the network namespace of pid {session.pid} has interfaces of its own ({', '.join(others)})",
            hint="only one with nothing but lo can be carried yet",
        )
    device = m.net_device_entry(type=_LOOPBACK, ifindex=1, mtu=_MTU, flags=flags, name="lo")
    store_one(session.store, "NETDEV", device, session.ident)
    store_one(session.store, "NETNS", m.netns_entry(), session.ident)


def restore(session: NsRestore) -> None:
    """Bring it up if it was; RestoreError for other interfaces in the images."""
    up = False
    if session.store.exists(kinds.NETDEV.file_name(session.ident)):
        for entry in iter_entries(session.store, kinds.NETDEV, session.ident):
            if entry.message.type != _LOOPBACK:
                raise RestoreError(f"the images have a network interface {entry.message.name}: not carried yet")
            up = bool(entry.message.flags & netdevice.IFF_UP)
    if up:
        inside(session.pidfd, CLONE_NEWNET, netdevice.loopback_up)
