"""mount namespace: a tree of mounts.

Kernel view
    ``/proc/PID/mountinfo``; contents of file systems in memory through copies of their mounts.
Image
    ``mnt_entry`` in ``mountpoints-%u.img``; ``tmpfs-dev-%u.tar.gz.img`` per tmpfs.
Restore
    The root puppet is cloned into a copy of our namespace, and makes other copies for processes that have another one.
    In each a new tree is put together by descriptors, attached over the old root, made the root, and the old one
    detached.
Limits
    Mounts of file systems that live on devices or in other processes are those of the host, found again by their path,
    or by ``--external``; anything else is refused.  So are idmapped mounts, unless the host has them at the same place,
    mounts of deleted files that are not empty, and file systems to be made anew with an option of more than 255 bytes
    (layers of an overlay with long names), which mount(2) takes and fsconfig(2) does not.
"""

from __future__ import annotations

from torpor.objects.ns.mnt.build import restore
from torpor.objects.ns.mnt.entries import dump

__all__ = ["dump", "restore"]
