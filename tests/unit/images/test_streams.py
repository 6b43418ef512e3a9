"""A set that is one stream: what goes into the pipe, what a reader may do to it, and what a stranger may send."""

from __future__ import annotations

import io
import os
import pty
import random
import tarfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from torpor.base.errors import UsageError
from torpor.images import kinds, manifest, pack
from torpor.images import messages as m
from torpor.images.errors import ImageError, StoreError
from torpor.images.manifest import Manifest
from torpor.images.pagemap import Extent
from torpor.images.pages import Piece
from torpor.images.store import ImageStore, store_one
from torpor.images.stores import spooled
from torpor.images.stores.checked import CheckedStore
from torpor.images.stores.copying import copy
from torpor.images.stores.directory import DirStore
from torpor.images.stores.memory import MemStore
from torpor.images.stores.opening import open_store
from torpor.images.stores.spooled import Part, PlacedStore, Spool, SpooledStore
from torpor.images.stores.stream import Pipe, TarStore
from torpor.migrate.spent import give_back

_ID = "0123456789abcdef0123"
_INVENTORY = kinds.INVENTORY.file_name()
_PAGES = bytes(range(256)) * 4096
_MANY = random.Random(5).randbytes((4 << 20) - 4096)


def _fill(store: ImageStore) -> None:
    with store.open_write("fs-1.img") as stream:
        stream.write(b"something")
    writer = store.pages_writer("pages-1.img", len(_PAGES))
    with store.open_write("ids-1.img") as stream:
        stream.write(b"written while pages are on their way")
    for at in range(0, len(_PAGES), 1 << 18):
        writer.append([memoryview(_PAGES)[at : at + (1 << 18)]])
    writer.close()
    store_one(store, "INVENTORY", m.inventory_entry(img_version=2, dump_criu_run_id=_ID))
    with store.open_write("torpor-job.json") as stream:
        stream.write(b"{}")


def _store(path: Path, how: str = "none") -> TarStore:
    return TarStore(Pipe(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), str(path)), str(path), how)


def _made(path: Path, how: str = "none") -> bytes:
    with _store(path, how) as store:
        _fill(store)
        store.commit(Manifest(_ID))
    return path.read_bytes()


def _read(data: bytes, path: Path) -> SpooledStore:
    return SpooledStore(io.BytesIO(data), "the stream", Spool(path))


class _Seen:
    """A stream that gives views of one buffer, which is written over when more is read."""

    def __init__(self, data: bytes) -> None:
        self._stream, self._room = io.BytesIO(data), bytearray(100_000)

    def read(self, n_bytes: int, /) -> bytes:
        self._room[:] = b"\xff" * len(self._room)
        return self._stream.read(n_bytes)

    def view(self, n_bytes: int, /) -> memoryview:
        room = memoryview(self._room)
        return room[: self._stream.readinto(room[:n_bytes])]


@pytest.mark.parametrize("how", ["none", "zstd"])
def test_a_stream_may_give_views_of_what_it_has(how: str, tmp_path: Path) -> None:
    data = _made(tmp_path / "x", how)
    with SpooledStore(_Seen(data), "the stream", Spool(tmp_path)) as seen, _read(data, tmp_path) as read:
        assert seen.names() == read.names()
        for name in seen.names():
            with seen.open_read(name) as one, read.open_read(name) as other:
                assert one.read() == other.read()


class _Placing:
    """Takes the first and the third MiB of pages, but for a page, to addresses of its own."""

    def __init__(self) -> None:
        self.places = [(7 << 20, 7 << 20 | 1 << 20, 0), (9 << 20, (9 << 20) + 4096, 2 << 20),
                       (3 << 20, (3 << 20) + (1 << 20) - 8192, (2 << 20) + 4096)]  # fmt: skip
        self.memory: dict[int, bytes] = {}

    def wanted(self, store: PlacedStore, name: str) -> list[Extent]:
        assert name == "pages-1.img" and store.names() == ["fs-1.img", name] and store.size_of(name) == len(_MANY)
        return self.places

    def put(self, pieces: Sequence[Piece], data: memoryview) -> None:
        assert sum(length for _, length in pieces) == len(data)
        at = 0
        for start, length in pieces:
            self.memory[start] = bytes(data[at : at + length])
            at += length

    def at(self, start: int, end: int) -> bytes:
        return b"".join(data for at, data in sorted(self.memory.items()) if start <= at < end)


def test_pages_may_go_to_where_they_belong_as_they_come(tmp_path: Path) -> None:
    path, placing = tmp_path / "x", _Placing()
    with _store(path) as made:
        with made.open_write("fs-1.img") as stream:
            stream.write(b"something")
        writer = made.pages_writer("pages-1.img", len(_MANY))
        writer.append([memoryview(_MANY)])
        writer.close()
        store_one(made, "INVENTORY", m.inventory_entry(img_version=2, dump_criu_run_id=_ID))
        made.commit(Manifest(_ID))
    data = path.read_bytes()
    with SpooledStore(io.BytesIO(data), "the stream", Spool(tmp_path), placing=placing) as store:
        for start, end, offset in placing.places:
            assert placing.at(start, end) == _MANY[offset : offset + end - start]
        reader = store.pages_reader("pages-1.img")
        room = memoryview(bytearray(4096))
        for at in range(0, len(_MANY) & -4096, 4096):
            if any(offset <= at < offset + end - start for start, end, offset in placing.places):
                with pytest.raises(StoreError, match="has gone to where it belongs"):
                    reader.read_at(at, room)
            else:
                reader.read_at(at, room)
                assert room == _MANY[at : at + 4096]
        assert isinstance(reader, Part)
        for start, end, offset in placing.places:
            reader.put_back(offset, memoryview(bytearray(placing.at(start, end))))
            assert not reader.is_absent(offset, end - start)
        whole = memoryview(bytearray(len(_MANY)))
        reader.read_at(0, whole)
        assert whole == _MANY
        reader.close()


def test_what_is_put_back_in_part_is_absent_in_part(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append("x", bytes(10))
        spool.leave_out(30)
        spool.append("x", bytes(10))
        spool.put_back(20, memoryview(bytes(5)))
        absent = [at for at in range(50) if spool.is_absent(at, 1)]
        assert absent == [*range(10, 20), *range(25, 40)]
        assert [spool.is_absent(*each) for each in ((0, 10), (0, 11), (20, 5), (20, 6), (19, 2), (40, 10))] == [
            False, True, False, True, True, False,
        ]  # fmt: skip


def test_what_goes_by_a_way_that_has_sums_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with TarStore(Pipe(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), str(path)), str(path), sums=False) as made:
        _fill(made)
        made.commit(Manifest(_ID))
    with _read(path.read_bytes(), tmp_path) as store, CheckedStore(store, manifest.load(store)) as checked:
        assert checked.manifest is not None and not checked.manifest.has_sums
        assert checked.manifest.files["pages-1.img"] == manifest.Content(len(_PAGES))
        with checked.open_read("pages-1.img") as stream:
            assert stream.read() == _PAGES


def test_one_that_shares_its_way_begins_when_that_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with TarStore(Pipe(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), str(path)), str(path), shared=True) as made:
        assert path.stat().st_size == 0
        made.begin()
        assert path.stat().st_size > 0


def test_what_makes_it_a_set_comes_last(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_made(tmp_path / "x.tar"))) as archive:
        names = archive.getnames()
        pages = archive.extractfile("checkpoint/pages-1.img")
        assert pages is not None and pages.read() == _PAGES
    assert names == [
        pack.MARK,
        "checkpoint/fs-1.img",
        "checkpoint/pages-1.img",
        "checkpoint/ids-1.img",
        "checkpoint/torpor-job.json",
        "checkpoint/torpor.manifest",
        "checkpoint/inventory.img",
    ]
    assert pack.is_ours(tmp_path / "x.tar")


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_it_is_read_whatever_it_is_compressed_with(how: str, tmp_path: Path) -> None:
    with _read(_made(tmp_path / "x", how), tmp_path) as store, CheckedStore(store, manifest.load(store)) as checked:
        assert checked.manifest is not None and checked.manifest.has_sums
        assert not [fault for name in checked.names() if (fault := checked.fault_of(name))]
        assert checked.size_of("pages-1.img") == len(_PAGES)


def test_a_stream_without_its_end_is_none(tmp_path: Path) -> None:
    data = _made(tmp_path / "x.tar")
    assert not any(data[-1024:])
    for n_bytes in (*range(0, 20_000, 97), *range(0, len(data) - 1024, 4096 * 16), len(data) - 1025):
        with pytest.raises(ImageError, match=r"^the stream: .*cut off"):
            _read(data[:n_bytes], tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != "x.tar"]


def test_a_changed_page_is_found_by_its_sum(tmp_path: Path) -> None:
    data = bytearray(_made(tmp_path / "x.tar"))
    data[data.index(_PAGES[:4096]) + 300_000] ^= 1
    with _read(bytes(data), tmp_path) as store, CheckedStore(store, manifest.load(store)) as checked:
        reader = checked.pages_reader("pages-1.img")
        reader.read_at(0, memoryview(bytearray(1 << 18)))
        with pytest.raises(ImageError, match="damaged"):
            reader.read_at(300_000, memoryview(bytearray(10)))
        reader.close()


def test_pages_are_as_long_as_was_told(tmp_path: Path) -> None:
    with _store(tmp_path / "x") as store:
        writer = store.pages_writer("pages-1.img", 4096)
        with pytest.raises(StoreError, match="904 bytes more"):
            writer.append([memoryview(bytes(5000))])
    with _store(tmp_path / "x") as store:
        writer = store.pages_writer("pages-1.img", 4096)
        writer.append([memoryview(bytes(100))])
        # Whoever fails in between closes it: of that nothing is told here, and no set comes of it.
        writer.close()
        with pytest.raises(StoreError, match="not all of it"):
            with store.open_write("fs-1.img") as stream:
                stream.write(b"something")
            _fill_small(store)
            store.commit()
    with pytest.raises(ImageError, match="cut off"):
        _read((tmp_path / "x").read_bytes(), tmp_path)


def test_what_has_been_sent_is_not_read_back(tmp_path: Path) -> None:
    with _store(tmp_path / "x") as store:
        _fill_small(store)
        for read in (store.open_read, store.pages_reader):
            with pytest.raises(StoreError, match="a stream is not read back"):
                read("inventory.img")


def _fill_small(store: ImageStore) -> None:
    store_one(store, "INVENTORY", m.inventory_entry(img_version=2, dump_criu_run_id=_ID))


def test_there_is_no_set_without_an_inventory(tmp_path: Path) -> None:
    with _store(tmp_path / "x") as store, pytest.raises(StoreError, match="not all of it"):
        store.commit()


# -- pipes -----------------------------------------------------------------------------------------------------------


def _into_pipe(reader: Callable[[int], None], *, is_blocking: bool = True) -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, is_blocking)
    thread = threading.Thread(target=reader, args=(theirs,))
    with TarStore(Pipe(ours, "the pipe"), "the pipe") as store:
        thread.start()
        try:
            _fill(store)
            store.commit(Manifest(_ID))
        finally:
            store.close()
            thread.join()


@pytest.mark.parametrize("is_blocking", [True, False])
def test_all_of_it_has_been_taken_at_the_commit(tmp_path: Path, is_blocking: bool) -> None:
    taken = bytearray()

    def read(fd: int) -> None:
        with open(fd, "rb", buffering=0) as stream:
            while data := stream.read(5000):
                taken.extend(data)

    _into_pipe(read, is_blocking=is_blocking)
    with _read(bytes(taken), tmp_path) as store:
        assert store.size_of("pages-1.img") == len(_PAGES)


def test_a_reader_that_goes_early_is_told() -> None:
    with pytest.raises(StoreError, match="reader has gone"):
        _into_pipe(os.close)


def test_a_reader_that_leaves_something_is_told() -> None:
    def read(fd: int) -> None:
        n_left = len(_PAGES)
        while n_left > 0:
            n_left -= len(os.read(fd, min(1 << 16, n_left)))
        # All but the end, which lies in the pipe, or will.
        os.close(fd)

    with pytest.raises(StoreError, match="reader has gone"):
        _into_pipe(read)


def test_a_terminal_gets_no_images() -> None:
    ours, theirs = pty.openpty()
    try:
        with pytest.raises(UsageError, match="is a terminal"):
            Pipe(os.dup(theirs), "standard output")
        assert os.isatty(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


# -- from strangers --------------------------------------------------------------------------------------------------


def _archive(*members: tuple[str, int, bytes]) -> bytes:
    """Of members with these names, told sizes and contents."""
    made = b""
    for name, n_bytes, data in members:
        info = tarfile.TarInfo(name)
        info.size = n_bytes
        made += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    return made + bytes(1024)


@pytest.mark.parametrize("name", ["checkpoint/../x.img", "/x.img", "checkpoint/a/b.img", "checkpoint/.x", "../x"])
def test_names_that_no_set_has_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        _read(_archive((name, 0, b"")), tmp_path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="twice"):
        _read(_archive(("checkpoint/x.img", 0, b""), ("checkpoint/x.img", 0, b"")), tmp_path)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        info = tarfile.TarInfo("checkpoint/x.img")
        info.type, info.linkname = kind, "/etc/passwd"
        with pytest.raises(ImageError, match="none of a checkpoint's files"):
            _read(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path)


def test_a_size_is_believed_as_far_as_there_is_room(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no room"):
        _read(_archive(("checkpoint/pages-1.img", 1 << 45, b"")), tmp_path)
    with pytest.raises(ImageError, match="not believed"):
        _read(_archive(("checkpoint/pages-1.img", 1 << 60, b"")), tmp_path)


def test_small_images_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "_MAX_KEPT", 1000)
    monkeypatch.setattr(spooled, "_MAX_IMAGES", 10)
    members = [(f"checkpoint/fs-{number}.img", 200, bytes([number]) * 200) for number in range(10)]
    with _read(_archive(*members), tmp_path) as store:
        assert len(store._kept) == 5
        for number in range(10):
            with store.open_read(f"fs-{number}.img") as stream:
                assert stream.read() == bytes([number]) * 200
    with pytest.raises(ImageError, match="more than 10 files"):
        _read(_archive(*members, ("checkpoint/fs-10.img", 0, b"")), tmp_path)


def test_much_after_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="follow the last"):
        _read(_archive() + bytes(20 << 20), tmp_path)


def test_a_file_of_zeroes_that_is_compressed_is_no_more_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "RESERVE", 1 << 60)
    bomb = io.BytesIO()
    sink = pack.compressed(bomb, "zstd")
    sink.write(_archive(("checkpoint/pages-1.img", 2 << 20, bytes(2 << 20))))
    sink.close()
    assert len(bomb.getvalue()) < 2000
    with pytest.raises(StoreError, match="no room"):
        _read(bomb.getvalue(), tmp_path)


def test_whatever_byte_is_changed_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    with _store(tmp_path / "x.tar") as store:
        for number in range(4):
            with store.open_write(f"fs-{number}.img") as stream:
                stream.write(bytes([number]) * 700)
        _fill_small(store)
        store.commit(Manifest(_ID))
    data, rng = (tmp_path / "x.tar").read_bytes(), random.Random(11)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 5))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        with suppress(ImageError), _read(bytes(changed), tmp_path) as store_of_it:
            with CheckedStore(store_of_it, manifest.load(store_of_it), borrowed=True) as checked:
                for name in checked.names():
                    with suppress(ImageError), checked.open_read(name) as stream:
                        assert len(stream.read()) == checked.size_of(name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


# -- copies ----------------------------------------------------------------------------------------------------------


def test_a_set_is_copied_from_store_to_store(tmp_path: Path) -> None:
    with DirStore(tmp_path / "set", "w", create=True) as directory:
        _fill(directory)
        memory = MemStore()
        copy(directory, memory)
        with _store(tmp_path / "x.tar") as stream:
            copy(memory, stream)
        with open_store(tmp_path / "x.tar", spool=tmp_path) as again:
            assert again.names() == memory.names() == directory.names()
            with again.open_read("pages-1.img") as pages:
                assert pages.read() == memory.images["pages-1.img"] == _PAGES


def test_what_lies_in_part_in_another_set_is_not_copied(tmp_path: Path) -> None:
    with DirStore(tmp_path / "set", "w", create=True) as directory:
        _fill(directory)
        directory.set_parent("..")
        with pytest.raises(ImageError, match="in another checkpoint"):
            copy(directory, MemStore())


def test_a_spool_in_memory_takes_as_much_as_it_may(tmp_path: Path) -> None:
    data = _made(tmp_path / "x.tar")
    with SpooledStore(io.BytesIO(data), "enough", Spool(None, 1 << 24)) as store:
        reader = store.pages_reader("pages-1.img")
        assert reader.size == len(_PAGES)
        reader.close()
    # What is small stays outside of it, however little it may take.
    large = _archive((f"{pack.FOLDER}pages-1.img", (1 << 20) + 1, bytes((1 << 20) + 1)))
    with pytest.raises(StoreError, match="no room in memory"):
        SpooledStore(io.BytesIO(large), "too much", Spool(None, 1 << 20))


def test_memory_that_is_at_hand_is_written_over_and_no_more_than_may_be(tmp_path: Path) -> None:
    with Spool(None, 3 << 20) as spool, Spool(tmp_path) as file:
        spool.append("x", b"kept")
        for each in (spool, file):
            each.warm_up(1 << 30)
        assert os.fstat(spool.fileno()).st_size == 4 + (3 << 20)
        assert os.fstat(file.fileno()).st_size == 0
        spool.append("x", b" too")
        assert spool.size == 8
        found = memoryview(bytearray(8))
        reader = spool.reader("x")
        reader.read_at(0, found)
        reader.close()
        assert bytes(found) == b"kept too"


def test_what_is_read_for_the_last_time_is_given_back_with_the_parents(tmp_path: Path) -> None:
    big = bytes((1 << 20) + 8192)
    data = _archive((f"{pack.FOLDER}pages-1.img", len(big), big), (f"{pack.FOLDER}pages-2.img", len(big), big))
    first = SpooledStore(io.BytesIO(data), "first", Spool(None, 1 << 24))
    with first, SpooledStore(io.BytesIO(data), "second", Spool(None, 1 << 24), parent=first) as second:
        assert second.parent() is first
        read: list[tuple[int, int]] = []
        second.read_once(lambda fd, start, n_bytes: read.append((start, n_bytes)))
        for store in (second, first):
            reader = store.pages_reader("pages-2.img")
            reader.read_at(4096, memoryview(bytearray(100)))
            reader.close()
        assert read == [(len(big) + 4096, 100)] * 2


def test_what_is_no_pages_is_there_as_often_as_it_is_read() -> None:
    """In another process all images lie in the spool, small ones as well."""
    small, pages = random.Random(3).randbytes(20_000), random.Random(4).randbytes(20_000)
    data = _archive((f"{pack.FOLDER}cgroup.img", len(small), small), (f"{pack.FOLDER}pages-1.img", len(pages), pages))
    with SpooledStore(io.BytesIO(data), "set", Spool(None, 1 << 24)) as images:
        fd, places = images.hand_over()
        with PlacedStore("set", Spool(None, opened=os.dup(fd)), places) as store:
            store.read_once(give_back)
            for _ in range(2):
                with store.open_read("cgroup.img") as stream:
                    assert stream.read() == small
            with store.open_read("pages-1.img") as stream:
                assert stream.read() == pages
            with store.open_read("pages-1.img") as stream:
                assert stream.read().count(0) > 8192
