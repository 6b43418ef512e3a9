"""What a directory sends becomes part of another one, and nothing that it says leads out of that."""

import io
import json
import os
import random
import struct
from pathlib import Path

import pytest

from torpor.base.errors import MigrationError
from torpor.containers import layer
from torpor.containers.layer import Copy, Directory


class _Pipe(io.BytesIO):
    """A way, and what comes out of it."""

    def finish(self) -> None:
        self.seek(0)


def _send(directory: Directory, target: Path, mapped: frozenset[str] = frozenset()) -> int:
    pipe = _Pipe()
    n_sent = directory.send(pipe, mapped)
    with Copy(target) as copy:
        copy.take(pipe)
    return n_sent


def _age(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been looked at is old enough for its times to tell."""
    monkeypatch.setattr(layer, "_COARSE_NS", -(1 << 60))


def _pair(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def test_all_goes_first_and_then_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _pair(tmp_path)
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(b"x" * 3_000_000)
    (source / "a/link").symlink_to("b/file")
    os.link(source / "a/b/file", source / "a/other")
    os.mkfifo(source / "a/fifo", 0o640)
    os.utime(source / "a/b", ns=(5, 1_000_000_007))
    directory = Directory(source)
    _age(source, monkeypatch)
    assert _send(directory, target) == 6
    assert (target / "a/b/file").read_bytes() == b"x" * 3_000_000
    assert os.readlink(target / "a/link") == "b/file"
    assert (target / "a/b/file").stat().st_ino == (target / "a/other").stat().st_ino
    assert (target / "a/b").stat().st_mtime_ns == 1_000_000_007
    assert (target / "a/fifo").is_fifo()
    assert _send(directory, target) == 0
    (source / "a/new").write_text("new")
    (source / "a/fifo").unlink()
    (source / "a/b/file").write_text("short")
    _send(directory, target)
    assert (target / "a/new").read_text() == "new"
    assert not (target / "a/fifo").exists()
    assert (target / "a/b/file").read_text() == (target / "a/other").read_text() == "short"


def test_a_file_that_has_just_been_written_to_goes_again(tmp_path: Path) -> None:
    """The clock of files is a coarse one: a write may leave all of its numbers as they were."""
    source, target = _pair(tmp_path)
    (source / "file").write_text("one")
    directory = Directory(source)
    assert _send(directory, target) == 1
    assert _send(directory, target) == 1


@pytest.mark.root
def test_anothers_file_in_a_directory_for_all_goes_again(tmp_path: Path) -> None:
    """As in /tmp and /dev/shm, where the kernel refuses even root who says O_CREAT (fs.protected_regular)."""
    source, target = _pair(tmp_path)
    for each in (source, target):
        (each / "tmp").mkdir()
        (each / "tmp").chmod(0o1777)
    (source / "tmp/file").write_text("one")
    os.chown(source / "tmp/file", 1000, 1000)
    directory = Directory(source)
    _send(directory, target)
    with open(source / "tmp/file", "r+") as file:
        file.write("another")
    _send(directory, target)
    assert (target / "tmp/file").read_text() == "another" and (target / "tmp/file").stat().st_uid == 1000


def test_of_a_large_file_only_what_has_changed_goes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _pair(tmp_path)
    place, rng = source / "file", random.Random(7)
    place.write_bytes(rng.randbytes(5_000_000))
    directory = Directory(source)
    assert _n_bytes(directory, target) > 5_000_000

    def change(at: int, data: bytes) -> None:
        with open(place, "r+b") as file:
            file.seek(at)
            file.write(data)

    def same(least: int, most: int) -> None:
        assert least <= _n_bytes(directory, target) <= most
        assert (target / "file").read_bytes() == place.read_bytes()

    inode = (target / "file").stat().st_ino
    same(0, 2000)
    change(70_000, b"x")
    change(4_999_999, b"y")
    same(2 * 5_000_000 % 65536, 2 * 65536 + 2000)
    change(7_000_000, b"behind a hole")
    same(2_000_000, 2_200_000)
    os.truncate(place, 3_000_001)
    same(1, 65536 + 2000)
    change(3_000_001, b"z" * 100_000)
    same(100_000, 3 * 65536 + 2000)
    assert (target / "file").stat().st_ino == inode
    # Another file of that name, one with a second name, and one that gets small, go as a whole.
    place.unlink()
    place.write_bytes(rng.randbytes(2_000_000))
    same(2_000_000, 2_010_000)
    os.link(place, source / "other")
    same(2_000_000, 2_010_000)
    (source / "other").unlink()
    same(2_000_000, 2_010_000)
    place.write_bytes(b"small")
    same(1, 70_000)


def _n_bytes(directory: Directory, target: Path) -> int:
    """How many a look takes."""
    pipe = _Pipe()
    directory.send(pipe)
    with Copy(target) as copy:
        copy.take(pipe)
    return len(pipe.getvalue())


@pytest.mark.parametrize("parts", [[[0, 0]], [[90, 20]], [[50, 10], [0, 10]], [[-1, 5]], [["0", 5]], 7, [[0]]])
def test_parts_that_cannot_be_are_refused(parts: object, tmp_path: Path) -> None:
    _, target = _pair(tmp_path)
    (target / "file").write_bytes(bytes(100))
    entry = {"path": "file", "kind": "file", "mode": 0o600, "uid": 0, "gid": 0, "mtime": 0, "size": 100, "parts": parts}
    data = json.dumps(entry).encode()
    with Copy(target) as copy, pytest.raises(MigrationError, match="makes no sense"):
        copy.take(io.BytesIO(struct.pack(">I", len(data)) + data + bytes(200)))


def test_a_mapped_file_goes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _pair(tmp_path)
    (source / "file").write_text("one")
    directory = Directory(source)
    _age(source, monkeypatch)
    assert _send(directory, target) == 1
    assert _send(directory, target) == 0
    assert _send(directory, target, frozenset({"file"})) == 1


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", "link/out", "", "a//b", "."])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    _, target = _pair(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "link").symlink_to(outside)
    entry = json.dumps(
        {"path": path, "kind": "file", "mode": 0o600, "uid": 0, "gid": 0, "mtime": 0, "size": 1}
    ).encode()
    with Copy(target) as copy, pytest.raises(MigrationError):
        copy.take(io.BytesIO(struct.pack(">I", len(entry)) + entry + b"x"))
    assert not list(outside.iterdir())
    assert not (tmp_path / "out").exists()


def test_a_link_to_what_lies_outside_is_refused(tmp_path: Path) -> None:
    _, target = _pair(tmp_path)
    (tmp_path / "secret").write_text("secret")
    entry = json.dumps({"path": "mine", "kind": "link", "target": "../secret"}).encode()
    with Copy(target) as copy, pytest.raises(MigrationError):
        copy.take(io.BytesIO(struct.pack(">I", len(entry)) + entry))
    assert not (target / "mine").exists()


def test_a_file_in_the_place_of_a_link_does_not_go_where_that_leads(tmp_path: Path) -> None:
    source, target = _pair(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (target / "file").symlink_to(victim)
    (source / "file").write_text("mine")
    _send(Directory(source), target)
    assert victim.read_text() == "untouched"
    assert (target / "file").read_text() == "mine"


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x05[1,2]", b"\0\0\0\x02[]", b"\0\0\0\x09{", b"\0"])
def test_nonsense_is_refused(tmp_path: Path, data: bytes) -> None:
    with Copy(tmp_path) as copy, pytest.raises(MigrationError):
        copy.take(io.BytesIO(data))
