"""Names that no path leads to any more once all mounts are in place: files under other mounts, deleted directories."""

from __future__ import annotations

import os

from torpor.base.fds import OwnedFd
from torpor.images.text import get_text
from torpor.objects.files.paths import MissingParents, free_names
from torpor.objects.ns.mnt.tree import Node, Tree, relative


class Names:
    """Names of files in the images that lie on the mounts of a tree; those that will be hidden are opened in time."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = tree.session.files
        self._by_mount: dict[int, set[str]] = {}
        if self._files is None:
            return
        by_id = {node.entry.mnt_id: node for node in tree.order}
        for entry in self._files.entries.values():
            node = by_id.get(entry.reg.mnt_id) if entry.HasField("reg") else None
            if node is not None and tree.find(name := get_text(entry.reg.name)) is not node:
                self._by_mount.setdefault(node.entry.mnt_id, set()).add(name)

    def open_on(self, node: Node) -> None:
        """Open what other mounts will hide of *node*, which was attached just now."""
        for name in self._by_mount.get(node.entry.mnt_id, ()):
            place = _open(node, relative(name, node.point))
            if place is not None and self._files is not None:
                self._files.add_hidden(node.entry.mnt_id, name, place)

    def tell(self, root_fd: int) -> None:
        """Have the names on the tree's mounts start from *root_fd*, its namespace's root."""
        if self._files is None:
            os.close(root_fd)
        elif self._tree.session.is_nested:
            self._files.add_mounts(root_fd, [node.entry.mnt_id for node in self._tree.order])
        else:
            self._files.enter_root(root_fd)


def _open(node: Node, path: str) -> tuple[OwnedFd, str] | None:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    if not path:
        return OwnedFd(os.dup(node.fd)), ""
    try:
        return OwnedFd(os.open(path, flags, dir_fd=node.fd)), ""
    except FileNotFoundError:
        pass
    directory, _, name = path.rpartition("/")
    try:
        return OwnedFd(os.open(directory or ".", flags | os.O_DIRECTORY, dir_fd=node.fd)), name
    except OSError:
        return None  # told by whoever opens it


class Deleted:
    """*path* below *directory*, made for as long as the ``with`` lasts: what a mount shows though it is deleted."""

    def __init__(self, directory: int, path: str, *, is_directory: bool) -> None:
        self._root = directory
        self._parents = MissingParents(directory, path)
        self._candidates = free_names(path)
        self._is_directory = is_directory
        self._made = ""

    def __enter__(self) -> str:
        """What it is called meanwhile."""
        self._parents.__enter__()
        for name in self._candidates:
            try:
                if self._is_directory:
                    os.mkdir(name, 0o755, dir_fd=self._root)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=self._root))
            except FileExistsError:
                continue
            self._made = name
            return name
        raise FileExistsError(self._candidates[0])

    def __exit__(self, *exception: object) -> None:
        if self._made:
            (os.rmdir if self._is_directory else os.unlink)(self._made, dir_fd=self._root)
        self._parents.__exit__()
