"""Putting the trees of mounts together, by descriptors.

All file systems are made, and all that is external is copied, in a yard (see there).  Then each namespace gets copies
of its mounts: nothing goes by the path of something mounted before, each mount is attached to the descriptor of its
parent, so that mounts on top of each other come out as they were.  Propagation comes last, for a mount that is
attached below a shared one would appear in several places.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, isolated, setns
from torpor.kernel.openat2 import open_in_root
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files.paths import is_below
from torpor.objects.files.tty_pairs import Early
from torpor.objects.ns.mnt import external, filesystems, hidden, propagation, tmpfs
from torpor.objects.ns.mnt.make import check_layers, is_made_by_puppet, make_by_puppet, make_filesystem
from torpor.objects.ns.mnt.tree import Node, Tree, read_tree, relative
from torpor.objects.ns.mnt.yard import Yard
from torpor.objects.ns.model import NsRestore
from torpor.tracee.batch import Batch


def restore(sessions: Sequence[NsRestore]) -> None:
    """Make all mounts of all mount namespaces of the tree, and their roots."""
    trees = [read_tree(session) for session in sessions]
    for tree in trees:
        external.settle(tree)
    propagation.check(trees)
    first = sessions[0]
    builder = _Builder(trees)
    builder.prepare()
    try:
        isolated(lambda: builder.run(first.pidfd, first.flags & (CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)))
    finally:
        builder.close()
    if first.flags & CLONE_NEWNS:
        _enter(first)


def _enter(session: NsRestore) -> None:
    """Have the root puppet's root directory be that of its namespace: it is not by itself where we are in a chroot."""
    batch = Batch()
    pid = batch.call(nr.getpid)
    pidfd = batch.call(nr.pidfd_open, pid, 0)
    batch.call(nr.setns, pidfd, CLONE_NEWNS)
    batch.call(nr.close, pidfd)
    session.runner.run(batch)


class _Builder:
    """The work, done by a thread of its own that goes from the yard into each namespace and back."""

    def __init__(self, trees: list[Tree]) -> None:
        self._trees = trees
        self._prepared: dict[int, int] = {}
        #: What copies are taken of, by file system: (descriptor of a mount in the yard, the root that it shows).
        self._bases: dict[int, list[tuple[int, str]]] = {}
        self._deleted: list[hidden.Deleted] = []
        self._left_out: set[int] = set()
        self._yard: Yard | None = None

    @property
    def yard(self) -> Yard:
        """Once there is one."""
        assert self._yard is not None
        return self._yard

    def prepare(self) -> None:
        """Have the root puppet make what only it can."""
        found = [(tree, node) for tree in self._trees for node in tree.order]
        self._bases = {}
        for tree, node in found:
            if _is_copied(tree, node) and not external.is_detected(node):
                self._bases.setdefault(node.entry.root_dev, []).append((-1, node.root))
        for tree, node in found:
            device = node.entry.root_dev
            if device in self._prepared or _is_copied(tree, node) or _is_made_late(node) or self._base_of(node):
                continue
            if is_made_by_puppet(node.entry, tree.session.flags):
                self._prepared[device] = make_by_puppet(tree.session, node.entry)
        self._bases = {}

    def close(self) -> None:
        """Close all descriptors of mounts."""
        fds = {fd for tree in self._trees for node in tree.order for fd in (node.fd, node.peer)}
        for fd in (fds | set(self._prepared.values())) - {-1}:
            os.close(fd)
        if self._yard is not None:
            self._yard.close()

    def run(self, pidfd: int, flags: int) -> None:
        """Make all mounts of all trees; to be called in a thread of its own.

        Done in the namespaces *flags* (CLONE_NEW*, 0 for none) of the process behind *pidfd*.  RestoreError.
        """
        for tree in self._trees:
            tmpfs.get_ready(tree.session.store, [node.entry.root_dev for node in tree.order])
        self._yard = Yard()
        if flags:
            # Some file systems belong to the namespace of whoever makes them.
            setns(pidfd, flags)
        for tree in self._trees:
            external.copy_all(tree)
        self.yard.close_off()
        for tree in self._trees:
            self._put_external(tree)
        for tree in self._trees:
            for node in tree.order[:]:
                if node.fd < 0 and not _is_made_late(node) and id(node) not in self._left_out:
                    self._make_or_leave_out(tree, node)
        try:
            for tree in self._trees:
                self._attach(tree)
                self.yard.enter()
        finally:
            for deleted in reversed(self._deleted):
                deleted.remove()
        propagation.restore(self._trees, self.yard, self._base_of)

    def _put_external(self, tree: Tree) -> None:
        """Have binds of external mounts, and of the root, be copies of these, which are private."""
        for node in tree.order:
            if node.fd >= 0:
                node.fd = self.yard.make_private(node.fd)
            if _is_copied(tree, node) and not external.is_detected(node):
                fd = self.yard.keep(os.dup(node.fd))
                self.yard.put(fd)
                self._bases.setdefault(node.entry.root_dev, []).append((fd, node.root))
                os.close(node.fd)
                node.fd = mounts.open_tree(fd, "")

    def _make(self, node: Node) -> None:
        """A copy of the part of its file system, which is made first if it is not there."""
        base = self._base_of(node)
        if base is None:
            device = node.entry.root_dev
            fd = self._prepared.pop(device, -1)
            base = (self.yard.keep(fd if fd >= 0 else make_filesystem(self._trees[0].session, node.entry)), "/")
            self.yard.put(base[0])
            self._bases.setdefault(device, []).append(base)
            self._fill(node, base[0])
        node.fd = self._copy(node, base)

    def _base_of(self, node: Node) -> tuple[int, str] | None:
        bases = self._bases.get(node.entry.root_dev, ())
        return next((base for base in bases if is_below(node.root, base[1])), None)

    def _copy(self, node: Node, base: tuple[int, str]) -> int:
        path = relative(node.root, base[1])
        if not path:
            return mounts.open_tree(base[0], path)
        if not node.entry.deleted:
            # What lies there comes from the images: through a symbolic link among it we would mount something of our
            # own.
            with OwnedFd(open_in_root(base[0], path, O_PATH, links=False)) as fd:
                return mounts.open_tree(fd.fileno(), "")
        # It can be mounted only as long as it has a name.
        self._deleted.append(hidden.Deleted(base[0], path, is_directory=node.on_directory))
        return mounts.open_tree(*self._deleted[-1].make())

    def _fill(self, node: Node, fd: int) -> None:
        """Contents; only then may the file system become read-only."""
        entry = node.entry
        kind = filesystems.BY_CODE.get(entry.fstype)
        if kind is not None and kind.restore is not None:
            session = self._trees[0].session
            context = session.context
            may_be_special = context is None or context.policies.files.special_files
            new_labels = {} if context is None else context.new_labels
            kind.restore(session.store, fd, entry.root_dev, session.idmaps, may_be_special, new_labels)
            if entry.sb_flags & mounts.MS_RDONLY:
                mounts.make_read_only(fd)

    def _attach(self, tree: Tree) -> None:
        """Go into the tree's namespace, and make its tree there in place of what it was born with."""
        session, root = tree.session, tree.root
        setns(session.where, CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        self._need(tree, root)
        with OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as old:
            mounts.move_mount(root.fd, old.fileno(), "")
        os.fchdir(root.fd)
        mounts.pivot_root(".", ".")
        mounts.unmount(".", mounts.MNT_DETACH)
        names = hidden.Names(tree)
        names.open_on(root)
        for parent in tree.order:
            for node in parent.children[:] if id(parent) not in self._left_out else ():
                _explained(node, lambda node: self._need(tree, node))
                if self._attach_or_leave_out(tree, node):
                    names.open_on(node)
        names.open_makers()
        for node in tree.order:
            _explained(node, self._set_flags)
        names.tell(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def _attach_or_leave_out(self, tree: Tree, node: Node) -> bool:
        """Whether it is attached.  What it is to be mounted on may be gone, even since a moment ago."""
        try:
            _attach_one(node)
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            if is_gone and external.hides_nothing(tree, node):
                log.warn(f"{node.point}: this kernel has nothing of that name, so what hides it is left out")
            elif is_gone and (external.may_be_left_out(tree, node) or external.has_lost_its_place(tree, node)):
                log.warn(f"{node.point}: the host's directory has none of that name any more; it is left out")
            else:
                raise RestoreError(f"{node.point} cannot be mounted: {error}") from error
            self._leave_out(tree, node)
            return False
        return True

    def _make_or_leave_out(self, tree: Tree, node: Node) -> None:
        try:
            self._make(node)
        except FileNotFoundError as error:
            if not external.may_be_left_out(tree, node):
                raise RestoreError(f"{node.point} cannot be mounted: {error}") from error
            log.warn(f"{node.point}: the host has no {node.root} any more; it is left out")
            self._leave_out(tree, node)
        except OSError as error:
            raise RestoreError(f"{node.point} cannot be mounted: {error}") from error

    def _leave_out(self, tree: Tree, node: Node) -> None:
        for each in node.iter_below():
            self._left_out.add(id(each))
            for fd in {each.fd, each.peer} - {-1}:
                self.yard.keep(fd)
        tree.remove(node)

    def _set_flags(self, node: Node) -> None:
        self.yard.set_flags(node.fd, node.entry.flags)
        if node.entry.flags & mounts.MS_UNBINDABLE:
            self.yard.set_propagation(node.fd, mounts.MS_UNBINDABLE)

    def _need(self, tree: Tree, node: Node) -> None:
        """Make what was left for now."""
        if node.fd >= 0:
            return
        if node.parent is not None:
            info = os.stat(relative(node.point, node.parent.point) or ".", dir_fd=node.parent.fd)
            node.on_directory = stat.S_ISDIR(info.st_mode)
        if _is_terminal(node):
            _make_terminal(tree, node)
        if self._base_of(node) is None and node.entry.fstype == filesystems.OVERLAY:
            check_layers(tree.root.fd, node.entry)
            by_puppet = is_made_by_puppet(node.entry, tree.session.flags) and not tree.session.is_nested
            fd = (
                make_by_puppet(tree.session, node.entry)
                if by_puppet
                else make_filesystem(self._trees[0].session, node.entry)
            )
            self.yard.keep(fd)
            self.yard.enter()
            self.yard.put(fd)
            self._bases.setdefault(node.entry.root_dev, []).append((fd, "/"))
        else:
            self.yard.enter()
        self._make(node)
        setns(tree.session.where, CLONE_NEWNS)


def _explained(node: Node, step: Callable[[Node], None]) -> None:
    try:
        step(node)
    except OSError as error:
        raise RestoreError(f"{node.point} cannot be mounted: {error}") from error


def _attach_one(node: Node) -> None:
    parent = node.parent
    assert parent is not None
    mounts.move_mount(node.fd, parent.fd, relative(node.point, parent.point))


def _make_terminal(tree: Tree, node: Node) -> None:
    """Open the other end, by the mount by which the tree finds it."""
    device, session = node.entry.root_dev, tree.session
    whole = next((each for each in tree.order if each.entry.root_dev == device and each.root == "/"), None)
    if whole is None or whole.fd < 0 or session.context is None:
        raise RestoreError(f"{node.point} is a terminal of a devpts that is not mounted itself")
    session.context.part(Early).make(whole.fd, int(node.root[1:]))


def _is_copied(tree: Tree, node: Node) -> bool:
    """Whether it comes from outside."""
    return node.is_external or (node is tree.root and not tree.session.is_nested)


def _is_made_late(node: Node) -> bool:
    """An overlay finds its layers by their paths in the namespace; a mount point tells what was mounted there."""
    return node.entry.fstype == filesystems.OVERLAY or node.entry.deleted or _is_terminal(node)


def _is_terminal(node: Node) -> bool:
    """Whether it is a pseudo-terminal (on /dev/console): it is there only as long as its other end is open."""
    return node.entry.fstype == filesystems.DEVPTS and node.root[1:].isdecimal()
