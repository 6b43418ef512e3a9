"""Archives of what a tmpfs holds: what is damage, and what is not."""

import gzip
import io
import tarfile

import pytest

from torpor.images.errors import ImageError
from torpor.objects.ns.mnt import tar_source


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
