"""Archives of what a tmpfs holds: what is damage, and what is not."""

import errno
import gzip
import io
import tarfile
from pathlib import Path

import pytest

from torpor.images.errors import ImageError
from torpor.kernel import lsm
from torpor.kernel.idmap import IDENTITY
from torpor.objects.ns.mnt import tar, tar_source


def _archive(**records: str) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("file")
        member.pax_headers = records
        archive.addfile(member)
    return io.BytesIO(gzip.compress(packed.getvalue()))


def test_a_number_that_is_none_is_damage() -> None:
    sparse = {"GNU.sparse.map": "one,two", "GNU.sparse.size": "3"}
    with pytest.raises(ImageError, match="damaged"), tar_source.opened(_archive(**sparse)) as archive:
        list(archive)


def test_what_is_no_archive_is_damage() -> None:
    with pytest.raises(ImageError, match="damaged"), tar_source.opened(io.BytesIO(b"nonsense")):
        pass


def test_a_mistake_of_whoever_reads_is_none() -> None:
    with pytest.raises(ValueError, match="a mistake"), tar_source.opened(_archive()) as archive:
        assert [member.name for member in archive] == ["file"]
        raise ValueError("a mistake")


@pytest.mark.parametrize(
    "records",
    [
        {"path": "one\0two"}, {"linkpath": "\0"}, {"SCHILY.xattr.user.\0": "x"},
        {"mtime": "inf"}, {"mtime": "nan"}, {"mtime": "1" + "0" * 30}, {"atime": "1" + "0" * 30}, {"mtime": "1" * 5000},
        {"GNU.sparse.map": "1,1", "GNU.sparse.size": str(1 << 70)},
        {"GNU.sparse.map": f"{1 << 63},1", "GNU.sparse.size": "3"},
        {"GNU.sparse.map": f"{1 << 62},{1 << 62}", "GNU.sparse.size": "3"},
        {"GNU.sparse.map": "1,1", "GNU.sparse.size": "-1"},
    ],
)  # fmt: skip
def test_what_no_file_has_is_damage(records: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError), tar_source.opened(_archive(**records)) as archive:
        tar.Reader(archive, IDENTITY).run()
    assert not [*tmp_path.iterdir()]


def test_a_mistake_of_ours_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tar.Reader, "_finish", mistaken)
    with pytest.raises(ValueError, match="a mistake"), tar_source.opened(_archive()) as archive:
        tar.Reader(archive, IDENTITY).run()


@pytest.mark.parametrize(
    ("new_labels", "written"), [({}, b"a:b:c:s0:c1\0"), ({"s0:c1": "s0:c2"}, b"a:b:c:s0:c2\0"), (None, b"")]
)
def test_labels_are_written_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_labels: dict[str, str] | None, written: bytes
) -> None:
    values: list[bytes] = []

    def write(parent: int, name: str, key: str, value: bytes, *, symlink: bool) -> None:
        values.append(value)
        raise OSError(errno.EOPNOTSUPP, "all files of the mount have one label")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lsm, "active", lambda: lsm.SELINUX)
    monkeypatch.setattr(tar, "_attribute", lambda *_, symlink: b"d:e:f:s0\0")
    monkeypatch.setattr(tar, "_set_attribute", write)
    monkeypatch.setattr(tar, "_times", lambda member: (0, 0))
    with tar_source.opened(_archive(**{"SCHILY.xattr.security.selinux": "a:b:c:s0:c1"})) as archive:
        tar.Reader(archive, IDENTITY, new_labels=new_labels).run()
    assert values == ([written] if written else [])
