"""Shared subtrees: peer groups and masters, see mount_namespaces(7).

Image
    ``shared_id`` and ``master_id``: numbers of groups, those with the same number belong together.
Restore
    All mounts are made private.  Masters come before slaves; the first mount of a group founds it, the others join it.
Limits
    A master group that has no mount in the namespace itself (the host's) is not joined again: such a mount comes back
    without a master.
"""

from __future__ import annotations

from collections.abc import Sequence

from torpor.base import log
from torpor.images import messages as m
from torpor.kernel import mount as mounts

_Member = tuple[m.mnt_entry, int]


def restore(members: Sequence[_Member]) -> None:
    """Set the propagation of mounts, given with their descriptors, all of which are private now."""
    founders: dict[tuple[int, int], int] = {}
    shared: dict[int, int] = {}
    waiting = [member for member in members if member[0].shared_id or member[0].master_id]
    present = {entry.shared_id for entry, _ in waiting}
    while waiting:
        ready = [
            (entry, fd)
            for entry, fd in waiting
            if not entry.master_id or entry.master_id in shared or entry.master_id not in present
        ]
        if not ready:
            log.warn("the mounts' groups depend on each other; they stay private")
            break
        for entry, fd in ready:
            _set(entry, fd, founders, shared)
        waiting = [member for member in waiting if member not in ready]
    for entry, fd in members:
        if entry.flags & mounts.MS_UNBINDABLE:
            mounts.set_attributes(fd, propagation=mounts.MS_UNBINDABLE)


def _set(entry: m.mnt_entry, fd: int, founders: dict[tuple[int, int], int], shared: dict[int, int]) -> None:
    key = (entry.shared_id, entry.master_id)
    if key in founders:
        mounts.join_group(founders[key], fd)
        return
    if entry.master_id in shared:
        mounts.join_group(shared[entry.master_id], fd)
        mounts.set_attributes(fd, propagation=mounts.MS_SLAVE)
    if entry.shared_id:
        mounts.set_attributes(fd, propagation=mounts.MS_SHARED)
        shared[entry.shared_id] = fd
    founders[key] = fd
