"""Archives of what a tmpfs holds: what is damage, and what is not."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from torpor.images.errors import ImageError
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
