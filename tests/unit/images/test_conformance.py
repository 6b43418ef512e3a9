"""What every store does, by one table of cases for all of them: images go in, and the same come out."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.streamer import Streamer
from torpor.containers.archive import read_archive
from torpor.images import kinds, manifest, pack
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.manifest import Content, Manifest
from torpor.images.store import ImageStore, load_one, store_one
from torpor.images.stores.both import BothStore
from torpor.images.stores.checked import CheckedStore
from torpor.images.stores.compressed import ZstdStore
from torpor.images.stores.directory import DirStore
from torpor.images.stores.late import LateStore
from torpor.images.stores.memory import MemStore
from torpor.images.stores.opening import open_store, plain
from torpor.images.stores.spooled import Spool
from torpor.images.stores.stream import Pipe, TarStore
from torpor.images.stores.streamer import CaptureStore, ServeStore

_INVENTORY = kinds.INVENTORY.file_name()
_ID = "0123456789abcdef0123"
#: Enough for several blocks of everything, and no multiple of anything.
_PAGES = random.Random(7).randbytes(1_500_001) + bytes(1_500_000)


@dataclass
class Pair:
    """A store to write into, and, once it is committed, one to read the same from.

    ``keeps_pages``: whether pages that are read come back.  ``can_change``: whether what was written can be replaced.
    """

    writer: ImageStore
    reopen: Callable[[], ImageStore]
    keeps_pages: bool = True
    can_change: bool = True

    def read(self) -> ImageStore:
        """What was written, after the commit."""
        if not self.writer.exists(_INVENTORY):
            store_one(self.writer, "INVENTORY", m.inventory_entry(img_version=2, dump_criu_run_id=_ID))
        self.writer.commit(Manifest(_ID))
        return self.reopen()


def _directory(path: Path) -> Pair:
    return Pair(DirStore(path / "set", "w", create=True), lambda: open_store(path / "set"))


def _memory(path: Path) -> Pair:
    store = MemStore()
    return Pair(store, lambda: store)


def _late(path: Path) -> Pair:
    store = MemStore()
    return Pair(LateStore(store), lambda: store)


def _first_of_both(path: Path) -> Pair:
    first = MemStore()
    return Pair(BothStore(first, MemStore()), lambda: first)


def _second_of_both(path: Path) -> Pair:
    second = MemStore()
    return Pair(BothStore(DirStore(path / "set", "w", create=True), second), lambda: second)


def _checked(path: Path) -> Pair:
    def reopen() -> ImageStore:
        directory = DirStore(path / "set")
        files = {}
        for name in directory.names():
            with directory.open_read(name) as stream:
                n_bytes = directory.size_of(name)
                files[name] = Content(n_bytes, manifest.sums_of(stream, n_bytes))
        return CheckedStore(directory, Manifest(_ID, files=files))

    return Pair(DirStore(path / "set", "w", create=True), reopen)


def _archive(path: Path) -> Pair:
    def reopen() -> ImageStore:
        pack.write(path / "set", path / "x.tar", "none")
        return read_archive(path / "x.tar").store

    return Pair(DirStore(path / "set", "w", create=True), reopen, keeps_pages=False)


def _stream(path: Path) -> Pair:
    """Through a file: what a pipe does is in test_streams.py."""
    archive = path / "x.tar"
    pipe = Pipe(os.open(archive, os.O_WRONLY | os.O_CREAT, 0o600), str(archive))
    writer = TarStore(pipe, str(archive), spool=str(path))
    return Pair(writer, lambda: open_store(archive, spool=path), can_change=False)


def _streamer(path: Path) -> Pair:
    """By the sockets of an image streamer."""
    images: dict[str, bytes] = {}
    capturing = Streamer(path, images)
    writer = CaptureStore(str(path), str(path))

    def reopen() -> ImageStore:
        writer.close()
        capturing.wait()
        Streamer(path, images, serves=True)
        return ServeStore(str(path), Spool(path))

    return Pair(writer, reopen, can_change=False)


def _zstd(path: Path) -> Pair:
    writer = ZstdStore(DirStore(path / "set", "w", create=True))
    return Pair(writer, lambda: plain(open_store(path / "set")))


def _zstd_in_memory(path: Path) -> Pair:
    store = MemStore()
    return Pair(ZstdStore(store), lambda: plain(store))


# fmt: off
_STORES = {
    "directory": _directory, "memory": _memory, "late": _late, "first of both": _first_of_both,
    "second of both": _second_of_both, "checked": _checked, "archive": _archive,
    "stream": _stream, "streamer": _streamer, "zstd": _zstd, "zstd in memory": _zstd_in_memory,
}
# fmt: on


@pytest.fixture(params=_STORES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    made = _STORES[request.param](tmp_path)
    with made.writer:
        yield made


def _write(store: ImageStore, name: str, *pieces: bytes) -> None:
    with store.open_write(name) as stream:
        for piece in pieces:
            stream.write(piece)


def _write_pages(store: ImageStore, name: str, data: bytes, *, is_told: bool = True) -> None:
    writer = store.pages_writer(name, len(data) if is_told else None)
    for at in range(0, len(data), 300_007):
        writer.append([memoryview(data)[at : at + 100], memoryview(b""), memoryview(data)[at + 100 : at + 300_007]])
    writer.close()


def _content(store: ImageStore, name: str) -> bytes:
    with store.open_read(name) as stream:
        return stream.read()


def test_images_come_out_as_they_went_in(pair: Pair) -> None:
    large = random.Random(1).randbytes(3 << 20)
    _write(pair.writer, "mm-1.img", b"one", b"", b"two")
    _write(pair.writer, "ids-1.img")
    pair.writer.put("files.img", large)
    assert pair.writer.exists("mm-1.img") and not pair.writer.exists("mm-2.img")
    assert pair.writer.names() == ["files.img", "ids-1.img", "mm-1.img"]
    with pair.read() as store:
        names = [name for name in store.names() if name != manifest.NAME]
        assert names == sorted([_INVENTORY, "files.img", "ids-1.img", "mm-1.img"])
        assert _content(store, "mm-1.img") == b"onetwo" and not _content(store, "ids-1.img")
        assert _content(store, "files.img") == large
        assert _content(store, "files.img") == large  # a second time, too
        assert [store.size_of(name) for name in ("ids-1.img", "files.img")] == [0, len(large)]
        assert store.size_bytes > len(large)
        assert store.parent() is None and store.path
        assert all(not store.fault_of(name) for name in store.names())
        with store.open_read("files.img") as stream:
            assert stream.seek(70_000) == 70_000 and stream.read(10) == large[70_000:70_010]


def test_messages_come_out_as_they_went_in(pair: Pair) -> None:
    store_one(pair.writer, "FS", m.fs_entry(cwd_id=1, root_id=2), 123)
    with pair.read() as store:
        assert load_one(store, kinds.FS, 123).root_id == 2
        assert load_one(store, kinds.INVENTORY).dump_criu_run_id == _ID


@pytest.mark.parametrize("is_told", [True, False])
def test_pages_are_read_at_any_place(pair: Pair, is_told: bool) -> None:
    _write_pages(pair.writer, "pages-1.img", _PAGES, is_told=is_told)
    _write_pages(pair.writer, "pages-2.img", b"", is_told=is_told)
    with pair.read() as store:
        reader = store.pages_reader("pages-1.img")
        assert reader.size == store.size_of("pages-1.img") == len(_PAGES)
        assert store.size_of("pages-2.img") == 0
        if not pair.keeps_pages:
            return
        rng = random.Random(3)
        for _ in range(50):
            start = rng.randrange(len(_PAGES))
            piece = bytearray(min(rng.choice((1, 4096, 400_000)), len(_PAGES) - start))
            reader.read_at(start, memoryview(piece))
            assert piece == _PAGES[start : start + len(piece)]
        whole = bytearray(len(_PAGES))
        reader.read_at(0, memoryview(whole))
        assert whole == _PAGES
        for start, n_bytes in ((len(_PAGES) - 1, 2), (len(_PAGES), 1), (1 << 50, 1)):
            with pytest.raises(ImageError):
                reader.read_at(start, memoryview(bytearray(n_bytes)))
        reader.close()
        assert _content(store, "pages-1.img") == _PAGES


def test_pages_are_read_by_several_threads(pair: Pair) -> None:
    _write_pages(pair.writer, "pages-1.img", _PAGES)
    with pair.read() as store:
        if not pair.keeps_pages:
            return
        reader = store.pages_reader("pages-1.img")
        wrong: list[int] = []

        def read(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(20):
                start = rng.randrange(len(_PAGES) - 4096)
                piece = bytearray(4096)
                reader.read_at(start, memoryview(piece))
                if piece != _PAGES[start : start + 4096]:
                    wrong.append(start)

        _together(*((lambda seed=seed: read(seed)) for seed in range(4)))
        assert not wrong
        reader.close()


def _together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_pages_are_written_by_several_threads(pair: Pair) -> None:
    n_bytes = 15 + 4 * 20 * 3000
    writer = pair.writer.pages_writer("pages-1.img", n_bytes)
    writer.append([memoryview(b"a" * 10), memoryview(b""), memoryview(b"b" * 5)])
    if not writer.supports_write_at:
        writer.append([memoryview(bytes(n_bytes - 15))])
        writer.close()
        return

    def write(byte: int) -> None:
        for _ in range(20):
            offset = writer.reserve(3000)
            writer.write_at(offset, [memoryview(bytes([byte]))] * 3000)

    _together(*((lambda byte=byte: write(byte)) for byte in range(4)))
    writer.close()
    with pair.read() as store:
        assert store.size_of("pages-1.img") == n_bytes
        if not pair.keeps_pages:
            return
        data = _content(store, "pages-1.img")
        assert data[:15] == b"a" * 10 + b"b" * 5
        assert all(len(set(data[at : at + 3000])) == 1 for at in range(15, len(data), 3000))


def test_what_is_missing_is_told(pair: Pair) -> None:
    with pytest.raises(ImageMissing, match=r"core-9\.img"):
        pair.writer.delete("core-9.img")
    with pair.read() as store:
        for use in (store.open_read, store.pages_reader, store.size_of):
            with pytest.raises(ImageMissing, match=r"core-9\.img"):
                use("core-9.img")
        assert not store.exists("core-9.img")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b", "x" * 256])
def test_names_that_are_no_file_names_are_refused(pair: Pair, name: str) -> None:
    writer = pair.writer
    for use in (
        writer.open_write,
        lambda name: writer.put(name, b""),
        writer.pages_writer,
        writer.delete,
        writer.exists,
    ):
        with pytest.raises(ImageError, match="not the name of an image"):
            use(name)
    with pair.read() as store:
        for look in (store.open_read, store.pages_reader, store.size_of, store.exists):
            with pytest.raises(ImageError, match="not the name of an image"):
                look(name)


def test_the_last_image_of_a_name_counts(pair: Pair) -> None:
    _write(pair.writer, "fs-1.img", b"first, and longer")
    _write_pages(pair.writer, "pages-1.img", b"first, and longer")
    if not pair.can_change:
        with pytest.raises(StoreError):
            _write(pair.writer, "fs-1.img", b"last")
        return
    _write(pair.writer, "fs-1.img", b"second")
    pair.writer.put("fs-1.img", b"last")
    _write_pages(pair.writer, "pages-1.img", b"last")
    with pair.read() as store:
        assert _content(store, "fs-1.img") == b"last" and store.size_of("pages-1.img") == 4


def test_what_was_deleted_is_gone(pair: Pair) -> None:
    for name in ("fs-1.img", "fs-2.img"):
        _write(pair.writer, name, b"something")
    if not pair.can_change:
        with pytest.raises(StoreError):
            pair.writer.delete("fs-1.img")
        return
    pair.writer.delete("fs-1.img")
    assert pair.writer.names() == ["fs-2.img"]
    with pair.read() as store:
        assert store.names() == ["fs-2.img", _INVENTORY]


def test_what_is_open_for_reading_is_not_written(pair: Pair) -> None:
    _write(pair.writer, "fs-1.img", b"something")
    store = pair.read()
    if isinstance(store, MemStore) or store.path == "memory":
        return  # it knows no modes
    with store:
        for use in (store.open_write, store.pages_writer, store.delete):
            with pytest.raises(StoreError, match="reading only"):
                use("fs-1.img")
