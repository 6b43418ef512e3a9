"""Putting the tree of mounts together, by descriptors, in the mount namespace of the root puppet.

Nothing here goes by the path of something mounted before: each mount is attached to the descriptor of its parent, so
that mounts on top of each other come out as they were.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.base.records import dataclass, field
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import load_all
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, inside
from torpor.kernel.pidfd import getfd
from torpor.objects.ns.mnt import filesystems, propagation
from torpor.objects.ns.mnt.entries import AUTODETECTED
from torpor.objects.ns.model import NsRestore
from torpor.tracee.batch import Batch

_TOP = 4096


@dataclass(slots=True)
class Node:
    """A mount to be: its entry, those on it in the order of mounting, and its descriptor once it is made."""

    entry: m.mnt_entry
    children: list[Node] = field(default_factory=list)
    fd: int = -1


def read_tree(session: NsRestore) -> Node:
    """The tree that the image says."""
    nodes = [Node(entry) for entry in load_all(session.store, kinds.MNTS, session.ident)]
    by_id = {node.entry.mnt_id: node for node in nodes}
    if len(by_id) != len(nodes) or not nodes or len(nodes) > _TOP:
        raise ImageError(f"mountpoints-{session.ident}.img holds no tree of mounts")
    roots = []
    # The image has them in the reverse of the order in which they were mounted.
    for node in reversed(nodes):
        parent = by_id.get(node.entry.parent_mnt_id)
        if parent is None or parent is node:
            roots.append(node)
        else:
            parent.children.append(node)
    if len(roots) != 1 or len(_in_order(roots[0])) != len(nodes):
        raise ImageError(f"mountpoints-{session.ident}.img: the mounts are not one tree")
    return roots[0]


def _in_order(root: Node) -> list[Node]:
    """Parents before children, siblings as they were mounted."""
    found = [root]
    for node in found:
        found += node.children
    return found


def restore(session: NsRestore) -> None:
    """Make all mounts and the new root."""
    root = read_tree(session)
    order = _in_order(root)
    source_root = os.open(f"/proc/{session.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    prepared = {
        node.entry.mnt_id: _made_by_puppet(session, node.entry)
        for node in order
        if _is_made_by_puppet(node.entry, session.flags)
    }
    flags = CLONE_NEWNS | session.flags & (CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
    try:
        inside(session.pidfd, flags, lambda: _Builder(session, source_root, prepared).run(root, order))
    finally:
        os.close(source_root)
        for fd in {*prepared.values(), *(node.fd for node in order)} - {-1}:
            os.close(fd)
    _enter(session)


def _enter(session: NsRestore) -> None:
    """Have the root puppet's root directory be that of its namespace: it is not by itself where we are in a chroot."""
    batch = Batch()
    pid = batch.call(nr.getpid)
    pidfd = batch.call(nr.pidfd_open, pid, 0)
    batch.call(nr.setns, pidfd, CLONE_NEWNS)
    batch.call(nr.close, pidfd)
    session.runner.run(batch)


class _Builder:
    """The work in the new namespace."""

    def __init__(self, session: NsRestore, source_root: int, prepared: dict[int, int]) -> None:
        self._session = session
        self._source = source_root
        self._prepared = prepared
        self._sources = external_sources(session.external)
        self._by_device: dict[int, Node] = {}

    def run(self, root: Node, order: list[Node]) -> None:
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        root.fd = mounts.open_tree(self._source, self._session.root.lstrip("/"))
        mounts.move_mount(root.fd, self._source, "")
        for parent in order:
            for node in parent.children:
                self._add(node, parent)
        propagation.restore([(node.entry, node.fd) for node in order if node is not root])
        os.fchdir(root.fd)
        mounts.pivot_root(".", ".")
        mounts.unmount(".", mounts.MNT_DETACH)

    def _add(self, node: Node, parent: Node) -> None:
        entry = node.entry
        try:
            node.fd = self._make(entry)
            mounts.move_mount(node.fd, parent.fd, relative(entry.mountpoint, parent.entry.mountpoint))
            if not entry.HasField("ext_key") and entry.root == "/" and entry.root_dev not in self._by_device:
                self._by_device[entry.root_dev] = node
                self._fill(node)
            mounts.set_attributes(node.fd, mounts.attributes_of(entry.flags))
        except OSError as error:
            raise RestoreError(f"{entry.mountpoint} cannot be mounted: {error}") from error

    def _fill(self, node: Node) -> None:
        """Contents; only then may the file system become read-only."""
        entry = node.entry
        kind = filesystems.BY_CODE.get(entry.fstype)
        if kind is not None and kind.restore is not None:
            kind.restore(self._session.store, node.fd, entry.root_dev, self._session.idmaps)
            if entry.sb_flags & mounts.MS_RDONLY:
                mounts.make_read_only(node.fd)

    def _make(self, entry: m.mnt_entry) -> int:
        if entry.HasField("ext_key"):
            return mounts.open_tree(self._source, self._source_of(entry).lstrip("/"))
        first = self._by_device.get(entry.root_dev)
        if first is not None:
            return mounts.open_tree(first.fd, relative(entry.root, first.entry.root))
        if entry.root != "/":
            raise RestoreError(f"{entry.mountpoint} binds {entry.root} of a file system that is not mounted itself")
        if entry.mnt_id in self._prepared:
            return self._prepared.pop(entry.mnt_id)
        return make_filesystem(entry)

    def _source_of(self, entry: m.mnt_entry) -> str:
        if entry.ext_key == AUTODETECTED:
            return entry.source
        if entry.ext_key not in self._sources:
            raise RestoreError(
                f"{entry.mountpoint} is an external mount", hint=f"say what it is: --external mnt[{entry.ext_key}]:PATH"
            )
        return self._sources[entry.ext_key]


def external_sources(external: tuple[str, ...]) -> dict[str, str]:
    """``mnt[key]:path`` of ``--external``."""
    found = {}
    for text in external:
        if text.startswith("mnt[") and "]:" in text:
            key, _, path = text[4:].partition("]:")
            found[key] = path
    return found


def relative(path: str, top: str) -> str:
    """*path* below *top*, "" for *top* itself; ImageError if it is not below."""
    if path == top:
        return ""
    prefix = "/" if top == "/" else top + "/"
    if not path.startswith(prefix) or ".." in path.split("/"):
        raise ImageError(f"{path} does not lie below {top}")
    return path[len(prefix) :]


def make_filesystem(entry: m.mnt_entry) -> int:
    """A new file system, as a detached mount of it."""
    context = mounts.fsopen(_type_of(entry))
    try:
        mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "source", entry.source or "none")
        for key, value in _options_of(entry):
            if value is None:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_FLAG, key)
            else:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        return mounts.fsmount(context, 0)
    finally:
        os.close(context)


def _type_of(entry: m.mnt_entry) -> str:
    kind = filesystems.BY_CODE.get(entry.fstype)
    if kind is None:
        raise RestoreError(f"{entry.mountpoint} is of a file system type ({entry.fstype}) that cannot be mounted yet")
    return kind.name


def _options_of(entry: m.mnt_entry) -> list[tuple[str, str | None]]:
    kind = filesystems.BY_CODE.get(entry.fstype)
    has_contents = kind is not None and kind.restore is not None
    flags = entry.sb_flags & ~mounts.MS_RDONLY if has_contents else entry.sb_flags
    words = [word for word in entry.options.split(",") if word] + filesystems.super_flag_names(flags)
    found: list[tuple[str, str | None]] = []
    for word in words:
        key, equals, value = word.partition("=")
        found.append((key, value if equals else None))
    return found


def _is_made_by_puppet(entry: m.mnt_entry, flags: int) -> bool:
    """With a user namespace, all are: a file system belongs to that of its maker, with its ids."""
    kind = filesystems.BY_CODE.get(entry.fstype)
    return (
        kind is not None
        and bool(kind.by_puppet or flags & CLONE_NEWUSER)
        and entry.root == "/"
        and not entry.HasField("ext_key")
    )


def _made_by_puppet(session: NsRestore, entry: m.mnt_entry) -> int:
    """A detached mount made by the root puppet, in whose pid namespace we are not."""
    runner = session.runner
    batch = Batch()
    context = batch.call(nr.fsopen, batch.path(_type_of(entry)), 1)
    runner.run(batch)
    batch = Batch()
    for key, value in [("source", entry.source or "none"), *_options_of(entry)]:
        command = mounts.FSCONFIG_SET_FLAG if value is None else mounts.FSCONFIG_SET_STRING
        text = 0 if value is None else batch.path(value)
        batch.call(nr.fsconfig, context.value, command, batch.path(key), text, 0)
    batch.call(nr.fsconfig, context.value, mounts.FSCONFIG_CMD_CREATE, 0, 0, 0)
    made = batch.call(nr.fsmount, context.value, 1, 0)
    batch.call(nr.close, context.value)
    runner.run(batch)
    fd = getfd(session.pidfd, made.value)
    batch = Batch()
    batch.call(nr.close, made.value)
    runner.run(batch)
    return fd
