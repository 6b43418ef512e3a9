"""Names that no path leads to any more once all mounts are in place: files under other mounts, deleted directories."""

from __future__ import annotations

import os

from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.text import get_text
from torpor.kernel import mount as mounts
from torpor.kernel.idmap import IDENTITY
from torpor.kernel.openat2 import open_in_root
from torpor.objects.files.paths import MissingParents, free_names, is_below
from torpor.objects.files.regular import Remaps

# Not imported when needed: that is in another mount namespace, where we do not lie.
from torpor.objects.files.socket.unix_name import name_of
from torpor.objects.ns.mnt.tree import Node, Tree, relative


class Names:
    """Names of files in the images that lie on the mounts of a tree; those that will be hidden are opened in time."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._context = tree.session.context
        self._by_mount: dict[int, set[str]] = {}
        self._ghosts: list[tuple[Node, str]] = []
        if self._context is None:
            return
        remaps = self._context.part(Remaps).by_file
        by_id = {node.entry.mnt_id: node for node in tree.order}
        for entry in self._context.files.entries.values():
            mount_id, name = _named(entry)
            node = by_id.get(mount_id)
            if node is None:
                continue
            if tree.find(name) is not node and is_below(name, node.point):
                self._by_mount.setdefault(mount_id, set()).add(name)
            remap = remaps.get(entry.reg.id)
            is_ghost = remap is not None and remap.remap_type == m.remap_type.GHOST
            if is_ghost and node.entry.flags & mounts.MS_RDONLY:
                self._ghosts.append((node, name))

    def open_on(self, node: Node) -> None:
        """Open what other mounts will hide of *node*, which was attached just now."""
        for name in self._by_mount.get(node.entry.mnt_id, ()):
            place = _open(node, relative(name, node.point))
            if place is not None and self._context is not None:
                self._context.files.add_hidden(node.entry.mnt_id, name, place)

    def open_makers(self) -> None:
        """Before mounts become read-only: where deleted files on them are made again."""
        for node, name in self._ghosts:
            try:
                directory = relative(name.rpartition("/")[0] or "/", node.point)
                with OwnedFd(open_in_root(node.fd, directory, os.O_PATH)) as at:
                    fd = OwnedFd(mounts.open_tree(at.fileno(), ""))
            except OSError:
                continue  # the directory is deleted as well, or a file is mounted
            if self._context is not None:
                self._context.files.add_maker(node.entry.mnt_id, name, fd)

    def tell(self, root_fd: int) -> None:
        """Have the names on the tree's mounts start from *root_fd*, its namespace's root."""
        if self._context is None:
            os.close(root_fd)
        elif self._tree.session.is_nested:
            self._context.files.add_mounts(root_fd, [node.entry.mnt_id for node in self._tree.order])
        else:
            self._context.files.enter_root(root_fd)


def _named(entry: m.file_entry) -> tuple[int, str]:
    """The mount that a file is on, and its name; (-1, "") for one without."""
    if entry.HasField("reg"):
        return entry.reg.mnt_id, get_text(entry.reg.name)
    if entry.HasField("usk") and entry.usk.name:
        name = name_of(entry.usk, IDENTITY, None)
        return (name.mount, name.path) if name.is_path else (-1, "")
    return -1, ""


def _open(node: Node, path: str) -> tuple[OwnedFd, str] | None:
    flags = os.O_PATH | os.O_NOFOLLOW
    if not path:
        return OwnedFd(os.dup(node.fd)), ""
    try:
        return OwnedFd(open_in_root(node.fd, path, flags)), ""
    except FileNotFoundError:
        pass
    directory, _, name = path.rpartition("/")
    try:
        return OwnedFd(open_in_root(node.fd, directory, flags | os.O_DIRECTORY)), name
    except OSError:
        return None  # told by whoever opens it


class Deleted:
    """*path* below *directory*, there for a while only: what a mount shows though it is deleted."""

    def __init__(self, directory: int, path: str, *, is_directory: bool) -> None:
        self._parents = MissingParents(directory, path)
        self._is_directory = is_directory
        self._made = ""

    def make(self) -> tuple[int, str]:
        """Make it; the directory that it is in, and what it is called meanwhile."""
        self._parents.__enter__()
        where, candidates = self._parents.directory, free_names(self._parents.last)
        for name in candidates:
            try:
                if self._is_directory:
                    os.mkdir(name, 0o755, dir_fd=where)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=where))
            except FileExistsError:
                continue
            self._made = name
            return where, name
        raise FileExistsError(candidates[0])

    def remove(self) -> None:
        """Take its name away, and those of directories that were made for it."""
        if self._made:
            (os.rmdir if self._is_directory else os.unlink)(self._made, dir_fd=self._parents.directory)
        self._parents.__exit__()
