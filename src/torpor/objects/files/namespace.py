"""Descriptors of namespaces, as opened below /proc/PID/ns.

Kernel view
    Files of nsfs; the link is ``net:[INODE]``, the inode is the namespace.
Image
    ``ns_file_entry``: the namespace's id, which some task's ``task_kobj_ids_entry`` has, and the CLONE_NEW* flag.
Restore
    Opened below /proc/PID/ns of a task that has the namespace.
Limits
    A namespace that no task of the tree is in is refused unless it is a network namespace that nobody else uses.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel import namespaces as ns
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files import status_flags
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.session import DumpContext, RestoreContext

#: What stands in the link -> field of ``task_kobj_ids_entry``, flag.
_KINDS = {
    "pid": ("pid_ns_id", ns.CLONE_NEWPID),
    "net": ("net_ns_id", ns.CLONE_NEWNET),
    "ipc": ("ipc_ns_id", ns.CLONE_NEWIPC),
    "uts": ("uts_ns_id", ns.CLONE_NEWUTS),
    "mnt": ("mnt_ns_id", ns.CLONE_NEWNS),
    "user": ("user_ns_id", ns.CLONE_NEWUSER),
    "time": ("time_ns_id", ns.CLONE_NEWTIME),
    "cgroup": ("cgroup_ns_id", ns.CLONE_NEWCGROUP),
}
_OPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target.partition(":[")[0] in _KINDS and not file.flags & O_PATH


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.nsf``: which namespace it is.  RefusedError for one that cannot be carried (see above)."""
    link = file.target.partition(":[")[0]
    field, flag = _KINDS[link]
    for process in context.processes:
        if not process.is_zombie and os.readlink(f"/proc/{process.pid}/ns/{link}") == file.target:
            nsf = entry.nsf
            nsf.id, nsf.ns_id, nsf.ns_cflag, nsf.flags = entry.id, getattr(process.ids, field), flag, file.flags
            return
    if flag == ns.CLONE_NEWNET:
        nsf = entry.nsf
        nsf.id, nsf.ns_cflag, nsf.flags = entry.id, flag, file.flags
        nsf.ns_id = context.part(Networks).id_of_namespace(file, file.fd)
        return
    raise file.refuse(f"{file.target} is a namespace that no process of the tree is in", hint="close it and try again")


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Open it by way of the first process that is in it."""
    nsf = entry.nsf
    link = next((link for link, (_, flag) in _KINDS.items() if flag == nsf.ns_cflag), None)
    if link is None:
        raise ImageError(f"files.img: file {entry.id} is a namespace of no known kind ({nsf.ns_cflag:#x})")
    field = _KINDS[link][0]
    for process in context.processes:
        if not process.is_zombie and getattr(process.ids, field) == nsf.ns_id:
            fd = os.open(f"/proc/{process.pid}/ns/{link}", os.O_RDONLY | os.O_CLOEXEC)
            status_flags.restore(fd, nsf.flags & ~_OPENING)
            return fd
    if nsf.ns_cflag == ns.CLONE_NEWNET and nsf.ns_id in context.networks:
        fd = os.open(f"/proc/self/fd/{context.networks[nsf.ns_id]}", os.O_RDONLY | os.O_CLOEXEC)
        status_flags.restore(fd, nsf.flags & ~_OPENING)
        return fd
    raise RestoreError(f"file {entry.id} is a {link} namespace that no process of the images is in")


KIND = FileKind("namespace", m.fd_types.NS, matches, dump, restore)
