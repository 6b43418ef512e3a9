"""Files that we write to."""

import os
import stat
from pathlib import Path

import pytest

from torpor.base import background
from torpor.base.errors import TorporError
from torpor.base.fds import put_new


def test_a_new_file_is_there_with_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".pid.new").symlink_to(victim)
    before = os.umask(0o027)
    try:
        for name in ("pid", str(tmp_path / "other")):
            fd = put_new(name, b"17", 0o644)
            assert fd is not None
            with fd:
                assert os.path.samestat(os.fstat(fd.fileno()), os.stat(name))
            assert Path(name).read_text() == "17" and stat.S_IMODE(os.stat(name).st_mode) == 0o640
    finally:
        os.umask(before)
    assert victim.read_text() == "kept"
    assert sorted(os.listdir()) == ["other", "pid", "victim"]


def test_one_that_is_there_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("12345")
    path.chmod(0o600)
    before = path.stat()
    assert put_new(str(path), b"17") is None and path.read_text() == "12345"
    background.write_pid(str(path), 17)
    assert path.read_text() == "17"
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TorporError, match=r"pid file .*: No space"):
        background.write_pid(str(tmp_path / "pid"), 17)
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_made_there_is_the_error_of_the_file_itself(tmp_path: Path) -> None:
    assert put_new(str(tmp_path / "none" / "pid"), b"17") is None
    with pytest.raises(TorporError, match=r"pid file .*none/pid: No such file"):
        background.write_pid(str(tmp_path / "none" / "pid"), 17)
    assert put_new(f"{tmp_path}/", b"17") is None
