import pytest

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import store_all
from torpor.images.stores.memory import MemStore
from torpor.objects.ns.mnt.tree import Tree, read_tree, relative
from torpor.objects.ns.model import NsRestore


def _entry(ident: int, parent: int, point: str) -> m.mnt_entry:
    return m.mnt_entry(
        fstype=5, mnt_id=ident, root_dev=1, parent_mnt_id=parent, flags=0, root="/", mountpoint=point, source="",
        options="",
    )  # fmt: skip


def _tree(*entries: m.mnt_entry) -> Tree:
    store = MemStore()
    store_all(store, "MNTS", list(reversed(entries)), 7)
    # The tree is read from the store alone.
    return read_tree(NsRestore(store, None, -1, 7, 0))  # type: ignore[arg-type]


def test_what_another_mount_will_hide_comes_first() -> None:
    tree = _tree(_entry(1, 0, "/"), _entry(2, 1, "/a"), _entry(3, 1, "/a/b/c"), _entry(4, 1, "/a/b"))
    assert [child.point for child in tree.root.children] == ["/a/b/c", "/a/b", "/a"]


def test_a_path_leads_to_the_topmost_mount() -> None:
    tree = _tree(_entry(1, 0, "/"), _entry(2, 1, "/a"), _entry(3, 2, "/a"), _entry(4, 1, "/a/b"))
    found = {path: tree.find(path).entry.mnt_id for path in ("/", "/ab", "/a", "/a/b/c")}
    assert found == {"/": 1, "/ab": 1, "/a": 3, "/a/b/c": 3}


def test_without_a_mount_all_on_it_is_gone() -> None:
    tree = _tree(_entry(1, 0, "/"), _entry(2, 1, "/a"), _entry(3, 2, "/a/b"), _entry(4, 1, "/c"))
    tree.remove(tree.root.children[0])
    assert [node.entry.mnt_id for node in tree.order] == [1, 4]


@pytest.mark.parametrize(
    "entries",
    [[], [_entry(1, 0, "/"), _entry(1, 1, "/a")], [_entry(1, 0, "/"), _entry(2, 0, "/a")],
     [_entry(1, 0, "/"), _entry(2, 3, "/a"), _entry(3, 2, "/a/b")]],
)  # fmt: skip
def test_no_tree(entries: list[m.mnt_entry]) -> None:
    with pytest.raises(ImageError):
        _tree(*entries)


def test_relative() -> None:
    assert (relative("/a/b", "/a"), relative("/a", "/"), relative("/", "/")) == ("b", "a", "")
    for path in ("/ab", "/a/../b"):
        with pytest.raises(ImageError):
            relative(path, "/a")
