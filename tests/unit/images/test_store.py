"""Images as messages in a store, and what a directory refuses; test_conformance.py has what all stores do."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.store import ImageStore, ImageWriter, iter_entries, load_all, load_one, store_all, store_one
from torpor.images.stores.directory import DirStore
from torpor.images.stores.memory import MemStore


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    made: ImageStore = DirStore(tmp_path, "w") if request.param == "directory" else MemStore()
    with made:
        yield made


def test_entries_go_in_and_come_out(store: ImageStore) -> None:
    fs = m.fs_entry(cwd_id=1, root_id=2)
    store_one(store, "FS", fs, 123)
    assert load_one(store, kinds.FS, 123).root_id == 2
    with ImageWriter(store, kinds.FDINFO, 2) as writer:
        for fd in range(3):
            writer.add(m.fdinfo_entry(id=fd, flags=0, type=m.fd_types.REG, fd=fd))
    assert [e.fd for e in load_all(store, kinds.FDINFO, 2)] == [0, 1, 2]
    assert [e.message.fd for e in iter_entries(store, kinds.FDINFO, 2)] == [0, 1, 2]
    assert store.names() == ["fdinfo-2.img", "fs-123.img"]
    assert store.exists("fs-123.img") and not store.exists("fs-1.img")
    store.commit()


def test_load_one_wants_exactly_one(store: ImageStore) -> None:
    fs = m.fs_entry(cwd_id=1, root_id=2)
    for n_entries in (0, 2):
        store_all(store, "FS", [fs] * n_entries, 1)
        with pytest.raises(ImageError, match=f"{n_entries} entries"):
            load_one(store, "FS", 1)


def test_files_are_private_and_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with DirStore(tmp_path / "images", "w", create=True) as images:
        store_one(images, "FS", m.fs_entry(cwd_id=1, root_id=2), 1)
        assert (tmp_path / "images/fs-1.img").stat().st_mode & 0o777 == 0o600
        (tmp_path / "images/fs-2.img").symlink_to("../secret")
        os.mkfifo(tmp_path / "images/fs-3.img")
        for name in ("fs-2.img", "fs-3.img"):
            for use in (images.open_read, images.pages_reader):
                with pytest.raises(StoreError, match=name):
                    use(name)
        assert images.names() == ["fs-1.img"]


def test_what_had_the_name_of_a_new_image_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "fs-2.img").symlink_to("secret")
    os.mkfifo(tmp_path / "fs-3.img")
    os.link(tmp_path / "secret", tmp_path / "fs-4.img")
    (tmp_path / "fs-5.img").write_bytes(b"")
    (tmp_path / "fs-5.img").chmod(0o644)
    with DirStore(tmp_path, "w") as images:
        for number in range(2, 6):
            store_one(images, "FS", m.fs_entry(cwd_id=1, root_id=2), number)
            made = (tmp_path / f"fs-{number}.img").lstat()
            assert stat.S_ISREG(made.st_mode) and (made.st_mode & 0o777, made.st_nlink) == (0o600, 1)
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told_with_a_hint(tmp_path: Path) -> None:
    from torpor.images.stores.directory import DirPagesWriter

    writer = DirPagesWriter(os.open("/dev/full", os.O_RDWR), "pages-1.img")
    with pytest.raises(StoreError, match=r"pages-1\.img: cannot write") as caught:
        writer.append([memoryview(b"x")])
    assert caught.value.hint and "free some space" in caught.value.hint
    writer.close()


def test_parents_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    with DirStore(tmp_path / "2", "w") as second:
        assert second.parent() is None
        second.set_parent("../1")
        first = second.parent()
        assert first is not None and first.names() == []
        (tmp_path / "1/parent").symlink_to("../2")
        with pytest.raises(ImageError, match="leads back"):
            first.parent()
        assert second.parent() is first
        second.set_parent("../gone")
        with pytest.raises(ImageMissing, match="gone"):
            second.parent()
    fd = os.open(tmp_path / "1", os.O_RDONLY)
    with DirStore.from_fd(fd) as again:
        os.close(fd)
        assert again.names() == []


def test_one_place_makes_a_store_of_a_path(repository: Path) -> None:
    makers = sorted(
        str(path.relative_to(repository / "src/torpor"))
        for path in (repository / "src/torpor").rglob("*.py")
        if "DirStore(" in path.read_text() or "DirStore.from_fd" in path.read_text()
    )
    assert makers == ["images/stores/directory.py", "images/stores/opening.py"]


@pytest.mark.parametrize("is_near", [True, False])
def test_a_file_without_a_name_becomes_an_image_of_what_is_written_over_it(*, is_near: bool, tmp_path: Path) -> None:
    with DirStore(tmp_path / "set", "w", create=True) as store:
        store.sums_what_it_writes = True
        if is_near:
            room = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
        else:
            room = os.memfd_create("elsewhere")
        os.write(room, bytes(100_000))
        writer = store.pages_writer_over(room, "pages-1.img")
        writer.append([memoryview(b"pages")])
        writer.write_at(writer.reserve(2), [memoryview(b"..")])
        writer.close()
        is_same = os.path.samestat(os.fstat(room), (tmp_path / "set/pages-1.img").stat())
        os.close(room)
        assert is_same is is_near and (tmp_path / "set/pages-1.img").read_bytes() == b"pages.."
        assert store.written == ["pages-1.img"] and store.sums["pages-1.img"].n_bytes == 7
