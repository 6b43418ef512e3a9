"""Archives of checkpoints: what went in comes out, and nothing else does."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from torpor.images import pack
from torpor.images.errors import ImageError, StoreError

_SUFFIXES = sorted(pack.SUFFIXES)
_MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b", "none": b"torpor-archive.json"}


def _set(directory: Path) -> dict[str, bytes]:
    files = {
        "inventory.img": b"inventory",
        "torpor-job.json": b"{}",
        "pages-1.img": bytes(range(256)) * 4096 + bytes(3 << 20),
        "empty.img": b"",
    }
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return files


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_what_went_in_comes_out(suffix: str, tmp_path: Path) -> None:
    files, archive, out = _set(tmp_path / "set"), tmp_path / f"web{suffix}", tmp_path / "out"
    how = pack.compression_of(archive)
    assert how == pack.SUFFIXES[suffix]
    pack.write(tmp_path / "set", archive, how)
    assert archive.read_bytes().startswith(_MAGIC[how])
    assert archive.stat().st_mode & 0o777 == 0o600
    assert pack.is_ours(archive)
    out.mkdir()
    pack.unpack(archive, out)
    assert _contents(out) == files
    assert all(path.stat().st_mode & 0o077 == 0 for path in out.iterdir())


def test_an_archive_of_others_is_compressed_as_its_name_says(tmp_path: Path) -> None:
    _set(tmp_path / "set")
    archive, out = tmp_path / "x.tar.gz", tmp_path / "out"
    pack.write(tmp_path / "set", archive, "none")
    before = archive.read_bytes()
    pack.compress(archive, "gzip")
    assert archive.read_bytes().startswith(b"\x1f\x8b") and gzip.decompress(archive.read_bytes()) == before
    out.mkdir()
    pack.unpack(archive, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set", "x.tar.gz"]


def test_other_names_are_directories() -> None:
    assert [pack.compression_of(Path(name)) for name in ("nap", "a.zst", "tar.gz.d")] == [None] * 3


def test_an_archive_without_its_end_is_refused(tmp_path: Path) -> None:
    _set(tmp_path / "set")
    for suffix in (".tar.zst", ".tar.gz", ".tar"):
        archive = tmp_path / f"x{suffix}"
        pack.write(tmp_path / "set", archive, pack.SUFFIXES[suffix])
        data = archive.read_bytes()
        # A tar itself has nothing at its end by which it could be told that all is there, but zeroes.
        archive.write_bytes(data[: 2 << 20] if suffix == ".tar" else data[:-1])
        out = tmp_path / f"out{suffix}"
        out.mkdir()
        with pytest.raises(ImageError):
            pack.unpack(archive, out)


def test_a_changed_byte_is_noticed_where_there_are_sums(tmp_path: Path) -> None:
    _set(tmp_path / "set")
    for suffix in (".tar.zst", ".tar.gz"):
        archive = tmp_path / f"x{suffix}"
        pack.write(tmp_path / "set", archive, pack.SUFFIXES[suffix])
        data = bytearray(archive.read_bytes())
        data[len(data) // 2] ^= 0xFF  # one bit may be of those that fill up a byte
        archive.write_bytes(data)
        out = tmp_path / f"out{suffix}"
        out.mkdir()
        with pytest.raises(ImageError):
            pack.unpack(archive, out)


def _hostile(kind: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("checkpoint/inventory.img")
        match kind:
            case "above":
                info.name = "checkpoint/../../evil.img"
            case "absolute":
                info.name = "/tmp/evil.img"
            case "deep":
                info.name = "checkpoint/a/b.img"
            case "hidden":
                info.name = "checkpoint/.profile"
            case "symlink":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            case "link":
                info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
            case "fifo":
                info.type = tarfile.FIFOTYPE
            case "device":
                info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
            case "twice":
                archive.addfile(info)
        archive.addfile(info)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["above", "absolute", "deep", "hidden", "symlink", "link", "fifo", "device", "twice"])
def test_names_and_kinds_that_no_checkpoint_has_are_refused(kind: str, tmp_path: Path) -> None:
    archive, out = tmp_path / "x.tar", tmp_path / "deep" / "out"
    archive.write_bytes(_hostile(kind))
    out.mkdir(parents=True)
    with pytest.raises(ImageError):
        pack.unpack(archive, out)
    assert {path.name for path in out.rglob("*")} <= {"inventory.img"}
    assert {path.name for path in tmp_path.rglob("*")} <= {"x.tar", "deep", "out", "inventory.img"}


def test_more_than_there_is_room_for_is_refused_before_it_is_written(tmp_path: Path) -> None:
    header = tarfile.TarInfo("checkpoint/pages-1.img")
    header.size = 1 << 45
    archive, out = tmp_path / "x.tar", tmp_path / "out"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    out.mkdir()
    with pytest.raises(StoreError, match="no room"):
        pack.unpack(archive, out)
    assert not list(out.iterdir())
