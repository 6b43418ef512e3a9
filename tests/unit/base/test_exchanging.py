"""Small files that are exchanged as a whole."""

import errno
import os
from pathlib import Path

import pytest

from torpor.base.exchanging import exchange, exchanged


def test_the_new_one_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "file"
    (tmp_path / ".file.new").symlink_to(tmp_path / "elsewhere")  # of somebody who means us harm
    exchange(place, b"first", 0o640)
    exchange(place, b"second", 0o640)
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"second", 0o640)
    assert os.listdir(tmp_path) == ["file"]


def test_an_earlier_one_stays_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "file"
    place.write_bytes(b"first")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "write", write)
        exchange(place, b"second")
    assert place.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]


def test_it_stays_as_well_where_what_is_done_meanwhile_fails(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"first")
    with pytest.raises(RuntimeError), exchanged(place, b"second") as beside:
        assert (beside.read_bytes(), place.read_bytes()) == (b"second", b"first")
        raise RuntimeError
    assert place.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]
