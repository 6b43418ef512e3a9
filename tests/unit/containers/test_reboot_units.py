"""The units of `torpor setup --survive-reboot`: systemd takes them, they are ours alone, and they are taken away."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.skips import missing
from torpor.base.errors import TorporError
from torpor.containers.reboot import units

COMMAND = Path("/bin/true")


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_they_are_put_there_once_and_taken_away(tmp_path: Path) -> None:
    (tmp_path / "user@.service.d").mkdir()
    (tmp_path / "user@.service.d/other.conf").touch()
    assert units.install(COMMAND, 100, tmp_path)
    assert not units.install(COMMAND, 100, tmp_path)
    assert units.are_there(tmp_path)
    assert {units.SAVE, units.RESTORE, "libpod-.scope.d/torpor-save.conf"} < files(tmp_path)
    assert units.install(COMMAND, 200, tmp_path)
    assert "TimeoutStopSec=260" in (tmp_path / units.SAVE).read_text()
    units.remove(tmp_path)
    assert files(tmp_path) == {"user@.service.d/other.conf"} and not units.are_there(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["user@.service.d"]
    assert units.remove(tmp_path) == []


def test_anothers_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / units.SAVE).write_text("[Unit]\n")
    with pytest.raises(TorporError, match="not torpor's"):
        units.install(COMMAND, 100, tmp_path)
    units.remove(tmp_path)
    assert files(tmp_path) == {units.SAVE} and (tmp_path / units.SAVE).read_text() == "[Unit]\n"


def test_systemd_takes_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("the command systemd-analyze (Debian: systemd)")
    units.install(COMMAND, 100, tmp_path)
    for name in (units.SAVE, units.RESTORE):
        line = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / name)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        told = [text for text in done.stderr.splitlines() if name in text]
        assert (done.returncode, told) == (0, []), done.stderr


def test_what_is_saved_is_stopped_after_the_save(tmp_path: Path) -> None:
    """And what restores comes first at boot, while what saves comes last, so that it is stopped first."""
    units.install(COMMAND, 100, tmp_path)
    save, restore = ((tmp_path / name).read_text() for name in (units.SAVE, units.RESTORE))
    after = next(line for line in save.splitlines() if line.startswith("After=")).split()
    assert {"podman-restart.service", units.RESTORE.join(("After=", "")), "machine.slice"} <= set(after)
    assert "Before=podman-restart.service" in restore
    for place in ("libpod-.scope.d", "session-.scope.d", "torpor-.scope.d"):
        assert f"Before={units.SAVE}" in (tmp_path / place / "torpor-save.conf").read_text()
