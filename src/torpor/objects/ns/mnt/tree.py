"""The trees of mounts that images hold, one a namespace."""

from __future__ import annotations

from collections.abc import Iterator

from torpor.base.records import dataclass, field
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import load_all
from torpor.images.text import get_text
from torpor.objects.files.paths import is_below, places_above
from torpor.objects.ns.model import NsRestore

_TOP = 100_000


@dataclass(slots=True)
class Node:
    """A mount to be: its entry, those on it in the order of mounting, and its descriptor once it is made.

    ``point`` is where it is seen from the namespace's root, ``root`` the part of its file system that it shows.
    ``peer`` is what an external mount was copied from with its propagation, if that matters.
    """

    entry: m.mnt_entry
    point: str
    root: str
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    fd: int = -1
    peer: int = -1
    #: Whether its mount point is a directory.
    on_directory: bool = True
    #: Its children by their points, once somebody asks.
    places: dict[str, Node] | None = None

    def iter_below(self) -> Iterator[Node]:
        """Itself and all mounts on it, parents before children."""
        found = [self]
        for node in found:
            yield node
            found += node.children

    @property
    def is_external(self) -> bool:
        """Whether something that is there already is bound, instead of a file system that is made."""
        return self.entry.HasField("ext_key") or self.entry.ext_mount

    @property
    def external_key(self) -> str:
        """What ``--external`` calls it.  In images of old, the key is where the root would be."""
        return get_text(self.entry.ext_key) if self.entry.HasField("ext_key") else self.root

    @property
    def groups(self) -> tuple[int, int]:
        """Peer group and master group; 0: none."""
        return self.entry.shared_id, self.entry.master_id


@dataclass(slots=True)
class Tree:
    """The mounts of one namespace, parents before children."""

    session: NsRestore
    root: Node
    order: list[Node]

    def remove(self, node: Node) -> None:
        """Do without *node* and all that is mounted on it."""
        gone = {id(below) for below in node.iter_below()}
        if node.parent is not None:
            node.parent.children = [other for other in node.parent.children if other is not node]
            node.parent.places = None
        self.order = [other for other in self.order if id(other) not in gone]

    def find(self, path: str) -> Node:
        """The mount that *path* leads to, with all mounts in place."""
        node = self.root
        while True:
            if node.places is None:
                node.places = {child.point: child for child in reversed(node.children)}
            covering = [place for place in places_above(path) if place in node.places]
            if not covering:
                return node
            node = node.places[covering[-1]]


def read_tree(session: NsRestore) -> Tree:
    """The tree that the image of a namespace says; ImageError if it is none."""
    name = f"mountpoints-{session.ident}.img"
    nodes = [
        Node(entry, get_text(entry.mountpoint), get_text(entry.root))
        for entry in load_all(session.store, kinds.MNTS, session.ident)
    ]
    by_id = {node.entry.mnt_id: node for node in nodes}
    if len(by_id) != len(nodes) or not nodes or len(nodes) > _TOP:
        raise ImageError(f"{name} holds no tree of mounts")
    roots = []
    # The image has them in the reverse of the order in which they were mounted.
    for node in reversed(nodes):
        parent = by_id.get(node.entry.parent_mnt_id)
        if parent is None or parent is node:
            roots.append(node)
        else:
            node.parent = parent
            parent.children.append(node)
    if len(roots) != 1:
        raise ImageError(f"{name}: the mounts are not one tree")
    order = list(roots[0].iter_below())
    if len(order) != len(nodes):
        raise ImageError(f"{name}: the mounts are not one tree")
    for node in order:
        _put_hidden_first(node)
    return Tree(session, roots[0], order)


def _put_hidden_first(node: Node) -> None:
    """What lies below another child's mount point must be mounted first: afterwards no path leads there."""
    points = {child.point for child in node.children}
    if not any(place in points for child in node.children for place in places_above(child.point)[1:]):
        return
    ordered: list[Node] = []
    for child in node.children:
        at = next((n for n, other in enumerate(ordered) if is_below(child.point, other.point)), len(ordered))
        ordered.insert(at, child)
    node.children = ordered


def relative(path: str, top: str) -> str:
    """*path* below *top*, "" for *top* itself; ImageError if it is not below."""
    if path == top:
        return ""
    if not is_below(path, top) or ".." in path.split("/"):
        raise ImageError(f"{path} does not lie below {top}")
    return path[len(top.rstrip("/")) + 1 :]
