"""user namespace: which ids inside are which outside.

Kernel view
    ``/proc/PID/uid_map``, ``gid_map``, ``projid_map`` and ``setgroups``; the namespace that owns another by
    NS_GET_USERNS.
Image
    ``userns_entry``; ``torpor_no_setgroups``, ``torpor_projid_map``.  All other images have ids as they are inside.
Restore
    The root puppet is cloned with the namespace, together with those that it owns; the conductor, outside, writes the
    maps; the puppet takes on the user and the group in charge (0).  What belongs to the tree's files is made by the
    conductor in the name of these two, or by the puppet.
Limits
    A tree is in one user namespace, which must own all other namespaces of the tree (but that of time).
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterable

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore, load_one, store_one
from torpor.kernel.arch import nr
from torpor.kernel.idmap import (
    NO_ID,
    Extent,
    IdMap,
    IdMaps,
    parse_idmap,
    read_idmaps,
    set_owner_of_new_files,
    write_idmaps,
)
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import read_status
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.nsfs import NS_GET_USERNS
from torpor.kernel.uapi.prctl import PR_SET_DUMPABLE, PR_SET_SECUREBITS
from torpor.kernel.uapi.securebits import SECBIT_NO_SETUID_FIXUP
from torpor.objects.ns.model import NsDump
from torpor.objects.task import creds
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_MAX_EXTENTS = 340


def check(pid: Pid, links: Iterable[str]) -> None:
    """RefusedError where a namespace of *pid* (``net``, ...) does not belong to its user namespace, or *pid* is nobody
    there.
    """
    creds.check(f"pid {pid}", read_status(pid), read_idmaps(pid))
    mine = os.stat(f"/proc/{pid}/ns/user").st_ino
    for link in links:
        with OwnedFd(os.open(f"/proc/{pid}/ns/{link}", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            try:
                owner = fcntl.ioctl(namespace.fileno(), NS_GET_USERNS)
            except PermissionError:
                continue  # an owner outside of ours
            with OwnedFd(owner) as fd:
                if os.fstat(fd.fileno()).st_ino != mine:
                    raise RefusedError(
                        f"the {link} namespace of pid {pid} belongs to another user namespace than the process",
                        hint="only namespaces that were made in the tree's own user namespace can be carried with it",
                    )


def dump(session: NsDump) -> None:
    """Write the maps of user, group and project ids, and whether setgroups(2) is forbidden."""
    maps = read_idmaps(session.pid)
    projects = parse_idmap(read_small(f"/proc/{session.pid}/projid_map"))
    entry = m.userns_entry()
    for field, one in ((entry.uid_map, maps.users), (entry.gid_map, maps.groups), (entry.torpor_projid_map, projects)):
        for each in one.extents:
            field.add(first=each.first, lower_first=each.outer, count=each.count)
    if not _allows_setgroups(session.pid):
        entry.torpor_no_setgroups = True
    store_one(session.store, "USERNS", entry, session.ident)


def _allows_setgroups(pid: Pid) -> bool:
    return read_small(f"/proc/{pid}/setgroups").strip() != "deny"


def load(store: ImageStore, ident: int) -> tuple[IdMaps, bool]:
    """The maps in the image, and whether groups may be changed; ImageError for maps that can be none."""
    entry = load_one(store, kinds.USERNS, ident)
    maps = IdMaps(_map_of(entry.uid_map), _map_of(entry.gid_map), _map_of(entry.torpor_projid_map))
    return maps, not entry.torpor_no_setgroups


def _map_of(extents: Iterable[m.uid_gid_extent]) -> IdMap:
    found = tuple(Extent(each.first, each.lower_first, each.count) for each in extents)
    if len(found) > _MAX_EXTENTS:
        raise ImageError(f"userns image: a map of {len(found)} lines")
    return IdMap(found)


def _owner(maps: IdMaps) -> tuple[int, int]:
    return maps.users.outside(maps.users.head), maps.groups.outside(maps.groups.head)


def prepare_thread(groups: Iterable[int], maps: IdMaps) -> None:
    """Have what the calling thread clones inherit *groups* (ids of ours): inside it can be forbidden to set them.

    The file system of POSIX message queues belongs to whose file-system ids make the ipc namespace.
    """
    numbers = array("I", groups)
    syscall("setgroups", nr.setgroups, len(numbers), numbers.buffer_info()[0])
    set_owner_of_new_files(*_owner(maps))


def write_maps(pid: Pid, maps: IdMaps, *, setgroups: bool) -> None:
    """Map the ids of the new namespace that *pid* is in."""
    try:
        write_idmaps(pid, maps, setgroups=setgroups)
    except OSError as error:
        raise RestoreError(
            f"the ids of the user namespace cannot be mapped: {error}", hint="restore as root of the ids that it uses"
        ) from error


def take_charge(runner: Runner, maps: IdMaps) -> None:
    """Have the puppet be who is in charge."""
    user, group = maps.users.head, maps.groups.head
    batch = Batch()
    batch.call(nr.prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    if maps.groups.outside(group) != NO_ID:
        batch.call(nr.setresgid, group, group, group)
    if maps.users.outside(user) != NO_ID:
        batch.call(nr.setresuid, user, user, user)
    batch.call(nr.prctl, PR_SET_SECUREBITS, 0)
    # A change of ids makes /proc/PID unreadable to its own user.  What it was is set when all is done.
    batch.call(nr.prctl, PR_SET_DUMPABLE, 1)
    runner.run(batch)
