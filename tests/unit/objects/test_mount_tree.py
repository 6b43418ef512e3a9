import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import store_all
from torpor.images.stores.memory import MemStore
from torpor.objects.ns.mnt import external, filesystems
from torpor.objects.ns.mnt.tree import Node, Tree, read_tree, relative
from torpor.objects.ns.model import NsRestore


def _entry(ident: int, parent: int, point: str) -> m.mnt_entry:
    return m.mnt_entry(
        fstype=5, mnt_id=ident, root_dev=1, parent_mnt_id=parent, flags=0, root="/", mountpoint=point, source="",
        options="",
    )  # fmt: skip


def _tree(*entries: m.mnt_entry, context: object = None) -> Tree:
    store = MemStore()
    store_all(store, "MNTS", list(reversed(entries)), 7)
    # The tree is read from the store alone.
    return read_tree(NsRestore(store, None, -1, 7, 0, context=context))  # type: ignore[arg-type]


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


@pytest.fixture(name="device")
def _device() -> Iterator[list[OwnedFd]]:
    """Whatever a test opens, closed at its end."""
    opened: list[OwnedFd] = []
    yield opened
    for each in opened:
        each.close()


def _hiding(*, below: int = filesystems.PROC, used: int = 0) -> tuple[Tree, Node]:
    """A mount on /proc/name, and whether a file is open on it (its mount's id)."""
    entries = [_entry(1, 0, "/"), _entry(2, 1, "/proc"), _entry(3, 2, "/proc/name")]
    entries[1].fstype = below
    opened = m.file_entry(type=m.fd_types.REG, id=1, reg=m.reg_file_entry(mnt_id=used))
    tree = _tree(*entries, context=SimpleNamespace(files=SimpleNamespace(entries={1: opened})))
    return tree, tree.find("/proc/name")


@pytest.mark.parametrize("below", [filesystems.PROC, filesystems.SYSFS])
def test_the_null_device_hides(device: list[OwnedFd], below: int) -> None:
    device.append(OwnedFd(os.open("/dev/null", os.O_PATH)))
    tree, node = _hiding(below=below)
    node.fd = device[0].fileno()
    assert external.hides_nothing(tree, node)


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_tells_something_does_not_hide(device: list[OwnedFd], path: str) -> None:
    device.append(OwnedFd(os.open(path, os.O_PATH)))
    tree, node = _hiding()
    node.fd = device[0].fileno()
    assert not external.hides_nothing(tree, node)


def test_an_empty_directory_hides_if_it_stays_empty() -> None:
    tree, node = _hiding()
    assert not external.hides_nothing(tree, node)
    node.entry.flags = 1
    assert external.hides_nothing(tree, node)


def test_what_somebody_has_open_is_more_than_a_mask() -> None:
    tree, node = _hiding(used=3)
    node.entry.flags = 1
    assert not external.hides_nothing(tree, node)


def test_elsewhere_nothing_is_the_kernel_s_to_have() -> None:
    tree, node = _hiding(below=filesystems.TMPFS)
    node.entry.flags = 1
    assert not external.hides_nothing(tree, node)


def test_what_lies_on_a_mask_stays() -> None:
    entries = [_entry(1, 0, "/"), _entry(2, 1, "/proc"), _entry(3, 2, "/proc/name"), _entry(4, 3, "/proc/name/more")]
    entries[1].fstype, entries[2].flags, entries[3].fstype = filesystems.PROC, 1, filesystems.OVERLAY
    tree = _tree(*entries, context=SimpleNamespace(files=SimpleNamespace(entries={})))
    assert not external.hides_nothing(tree, tree.find("/proc/name"))
