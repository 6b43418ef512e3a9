"""`torpor.dump` and `torpor.restore` as a program calls them: into a directory, and into one file."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

import torpor
from torpor.base.errors import UsageError
from torpor.images.errors import StoreError
from torpor.objects.arch import cpu

pytestmark = pytest.mark.root
NULL = subprocess.DEVNULL


@pytest.mark.parametrize("name", ["nap", "nap.tar", "nap.tar.gz", "nap.tar.zst"])
def test_there_and_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    sleeper = subprocess.Popen(["sleep", "1000"], stdin=NULL, stdout=NULL, stderr=NULL, cwd="/")
    told: list[str] = []
    torpor.dump(sleeper.pid, str(tmp_path / name), commit=told.append)
    sleeper.wait()
    assert len(told) == 1
    assert (tmp_path / name).is_file() == (name != "nap")
    pid = torpor.restore(str(tmp_path / name))
    assert pid == sleeper.pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left = {each.name for each in tmp_path.iterdir()} - {"state"}
    assert left == {name}


def test_a_directory_with_an_archives_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nap.tar").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        torpor.dump(os.getpid(), tmp_path / "nap.tar")


def test_a_dump_that_fails_before_it_stops_anything_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(cpu, "dump", full)
    before = os.listdir("/proc/self/fd")
    with subprocess.Popen(["sleep", "1000"], stdin=NULL, stdout=NULL, stderr=NULL, cwd="/") as sleeper:
        try:
            with pytest.raises(StoreError, match="no space"):
                torpor.dump(sleeper.pid, tmp_path / "nap")
            assert not list(tmp_path.iterdir())
        finally:
            sleeper.kill()
    assert os.listdir("/proc/self/fd") == before
