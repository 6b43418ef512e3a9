"""The numbers by which a network namespace knows others, as its interfaces' peers name them.

Kernel view
    RTM_GETNSID for each other namespace of the tree, after the interfaces were listed: only then has the kernel given
    numbers to all those that interfaces lead to.
Image
    ``netns_id`` in ``netns_entry``: the number, and the id of the namespace in the images.
Restore
    RTM_NEWNSID before the interfaces are made, which would get numbers as they come.
Limits
    Numbers of namespaces outside of the tree are not carried.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from torpor.base.errors import KernelError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.kernel import rtnetlink
from torpor.kernel.namespaces import CLONE_NEWNET
from torpor.kernel.netlink import Netlink
from torpor.objects.ns.net.work import Work
from torpor.objects.session import DumpContext


def read(connection: Netlink, context: DumpContext) -> dict[int, int]:
    """The image's id of each namespace of the tree by the number by which the socket's namespace knows it."""
    places = {
        ident: f"/proc/self/fd/{fd.fileno()}" for (flag, ident), fd in context.held.items() if flag == CLONE_NEWNET
    }
    places |= {each.ids.net_ns_id: f"/proc/{each.pid}/ns/net" for each in context.processes if not each.is_zombie}
    found = {}
    for ident, path in places.items():
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as other:
            number = rtnetlink.read_nsid(connection, other.fileno())
        if number is not None:
            found[number] = ident
    return found


def dump(entry: m.netns_entry, ids: dict[int, int]) -> None:
    """Fill in ``entry.nsids`` with *ids*, as ``read`` gives them: the image's id by the kernel's number."""
    for number, ident in ids.items():
        entry.nsids.add(target_ns_id=ident, netnsid_value=number)


def restore(entry: m.netns_entry, work: Work, works: Mapping[int, Work]) -> None:
    """Have the namespace know others by the same numbers."""
    for each in entry.nsids:
        other = works.get(each.target_ns_id)
        if other is None:
            continue  # ours, when the tree was in it, or one that is joined
        try:
            rtnetlink.set_nsid(work.inside, other.inside_fd, each.netnsid_value)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
