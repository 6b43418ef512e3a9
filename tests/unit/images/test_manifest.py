"""The manifest: as written, as read, and what is no manifest."""

import os
from pathlib import Path

import pytest

from torpor.base.records import replace
from torpor.images import manifest
from torpor.images.errors import ImageError
from torpor.images.manifest import BLOCK_BYTES, Content, Manifest
from torpor.images.stores.directory import DirStore

MADE = Manifest("0123abcd", "torpor checkpoint", "1.2", "host", "6.18", "x86_64", 1764305400.5, "boot")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files = {"core-1.img": Content(10, b"12345678"), "pages-1.img": Content(BLOCK_BYTES + 1, b"12345678abcdefgh")}
    made = replace(MADE, files=files | {"mm-1.img": Content(3)})
    (tmp_path / manifest.NAME).write_bytes(manifest.encode(made))
    found = manifest.read(tmp_path)
    assert found == made
    assert found.n_bytes == BLOCK_BYTES + 14


def test_where_there_is_none(tmp_path: Path) -> None:
    assert manifest.read(tmp_path) is None
    assert manifest.read(tmp_path / "nowhere") is None


def test_made_here_says_where() -> None:
    made = manifest.made_here("id", "criu dump", "1.0")
    assert (made.host, made.kernel, made.architecture) == (os.uname().nodename, os.uname().release, os.uname().machine)
    assert made.boot and made.date


@pytest.mark.parametrize("n_bytes", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_sums_find_a_changed_bit(tmp_path: Path, n_bytes: int) -> None:
    data = bytearray(os.urandom(n_bytes))
    path = tmp_path / "image"
    path.write_bytes(data)
    with path.open("rb") as stream:
        content = Content(n_bytes, manifest.sums_of(stream, n_bytes))
    assert len(content.sums or b"") == 8 * manifest.n_blocks(n_bytes)
    for index in range(manifest.n_blocks(n_bytes)):
        block = data[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        assert manifest.is_right(content, index, block)
        block[-1] ^= 1
        assert not manifest.is_right(content, index, block)


@pytest.mark.parametrize("n_bytes", [0, 5, BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
@pytest.mark.parametrize("piece", [4096, BLOCK_BYTES, 2 * BLOCK_BYTES, BLOCK_BYTES + 4096])
def test_sums_of_pieces_are_those_of_the_file(tmp_path: Path, n_bytes: int, piece: int) -> None:
    data = os.urandom(n_bytes)
    (tmp_path / "image").write_bytes(data)
    sums = manifest.BlockSums()
    for start in reversed(range(0, n_bytes, piece)):
        sums.add(start, memoryview(data)[start : start + piece])
    with (tmp_path / "image").open("rb") as stream:
        assert sums.end(stream.fileno()) == Content(n_bytes, manifest.sums_of(stream, n_bytes))


@pytest.mark.parametrize("sums_now", [True, False])
def test_a_store_sums_what_it_writes_if_it_is_told(tmp_path: Path, sums_now: bool) -> None:
    with DirStore(tmp_path, "w") as store:
        store.sums_what_it_writes = sums_now
        with store.open_write("small.img") as stream:
            stream.write(b"a" * 10)
            stream.write(b"b" * BLOCK_BYTES)
        writer = store.pages_writer("pages-1.img")
        for room in [writer.reserve(BLOCK_BYTES), writer.reserve(BLOCK_BYTES + 4096)][::-1]:
            writer.write_at(room, [memoryview(bytes(BLOCK_BYTES)), memoryview(b"c" * 4096)][: 1 + bool(room)])
        writer.close()
        assert sorted(store.sums) == (["pages-1.img", "small.img"] if sums_now else [])
        for name, content in store.sums.items():
            with store.open_read(name) as stream:
                assert content == Content(content.n_bytes, manifest.sums_of(stream, content.n_bytes))


def test_a_file_that_is_shorter_than_said(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"short")
    with (tmp_path / "image").open("rb") as stream, pytest.raises(ImageError, match="truncated"):
        manifest.sums_of(stream, 6)


def _damaged() -> list[bytes]:
    whole = manifest.encode(replace(MADE, files={"x": Content(1, b"12345678")}))
    lines = whole.split(b"\n")
    changes = {
        b"date ": b"date noon",
        b"file ": b"file",
        b"file 1": b"file 1 00 x",
        b"file 1 ": b"file 1 zz x",
        b"file 1 3": b"file -1 - x",
        b"file 1 31": b"file 1 - ../x",
        b"file 1 313": b"file 99999999999999999999999 - x",
        b"host": b"host \\u",
        b"torpor manifest": b"torpor manifest 2",
    }
    changed = [
        b"\n".join(new if line.startswith(old) else line for line in lines) for old, new in changes.items()
    ]  # fmt: skip
    return [b"", b"\xff\xfe", whole[:-1], whole[:-20], *changed]


@pytest.mark.parametrize("data", _damaged())
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ImageError):
        manifest.parse(data)


def test_names_and_hosts_may_be_anything() -> None:
    made = replace(MADE, host="h\u00f6st\nid 5", made_by="\\n ", files={"a b\n": Content(0, b"")})
    assert manifest.parse(manifest.encode(made)) == made
