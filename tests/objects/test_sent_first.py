"""A dump that goes elsewhere, too: it is written here when all of it has gone there, and the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import wait_said
from harness.skips import need_tracking
from torpor.engine.dump.run import dump, pre_dump
from torpor.engine.options import DumpOptions
from torpor.images import kinds, manifest
from torpor.images.stores.memory import MemStore
from torpor.objects.memory.tracking import Tracker

pytestmark = pytest.mark.root
#: Has 8 MiB, and writes to every third page of them when it is told to.
_PROGRAM = """
import mmap, os, signal
held = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held[:] = os.urandom(8 << 20)
def write(number, frame):
    for at in range(0, 8 << 20, 12288):
        held[at : at + 8] = os.urandom(8)
    print("written", flush=True)
signal.signal(signal.SIGUSR1, write)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


@pytest.fixture
def process(said: Path) -> "Iterator[subprocess.Popen[bytes]]":
    line = [sys.executable, "-S", "-c", _PROGRAM]
    with (
        open(said, "wb") as out,
        subprocess.Popen(line, stdin=-3, stdout=out, stderr=out, start_new_session=True) as made,
    ):
        try:
            assert wait_said(said, "ready")
            yield made
        finally:
            made.kill()


class _Elsewhere(MemStore):
    """What of the images is in *home* when all have come."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home
        self.found = ["nobody has looked"]

    def commit(self, made: manifest.Manifest | None = None) -> None:
        self.found = [path.name for path in self._home.rglob("*.img")]


def _is_the_same(here: Path, there: MemStore) -> bool:
    images = {path.name: path.read_bytes() for path in here.glob("*.img") if not path.name.startswith("stats-")}
    return images == {name: bytes(data) for name, data in there.images.items() if name.endswith(".img")}


def test_all_of_it_is_written_when_it_has_gone(process: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", _Elsewhere(tmp_path / "home")
    home.mkdir()
    dump(process.pid, home, DumpOptions(also=elsewhere, owns_directory=True))
    assert elsewhere.found == [] and _is_the_same(home, elsewhere)
    assert (home / "pages-1.img").stat().st_size > 8 << 20


def test_what_the_tracker_knows_of_the_images_before_is_not_read_from_them(
    process: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    need_tracking()
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    with Tracker() as tracker:
        pre_dump(process.pid, tmp_path / "first", DumpOptions(tracker=tracker))
        (tmp_path / "first" / kinds.PAGEMAP.file_name(process.pid)).write_bytes(b"no page map")
        dump(process.pid, tmp_path / "last", DumpOptions(tracker=tracker, parent="../first"))
    assert (tmp_path / "last/pages-1.img").stat().st_size < 1 << 20


@pytest.mark.parametrize("room_bytes", [0, 1 << 20, 32 << 20])
def test_a_round_has_made_room_for_more_or_less(
    room_bytes: int, process: "subprocess.Popen[bytes]", said: Path, tmp_path: Path
) -> None:
    need_tracking()
    (tmp_path / "last").mkdir()
    (tmp_path / "first").mkdir()
    elsewhere = _Elsewhere(tmp_path / "last")
    with Tracker() as tracker:
        if room_bytes:
            tracker.make_room(tmp_path, room_bytes)
        pre_dump(process.pid, tmp_path / "first", DumpOptions(tracker=tracker))
        process.send_signal(signal.SIGUSR1)
        assert wait_said(said, "written")
        dump(process.pid, tmp_path / "last", DumpOptions(also=elsewhere, tracker=tracker, parent="../first"))
        assert tracker.take_room() is None
    assert elsewhere.found == [] and _is_the_same(tmp_path / "last", elsewhere)
    n_bytes = (tmp_path / "last/pages-1.img").stat().st_size
    assert (8 << 20) // 3 <= n_bytes < 8 << 20
    assert not [name for name in os.listdir(tmp_path) if name not in ("said", "first", "last")]


def test_a_room_that_is_not_needed_is_gone(tmp_path: Path) -> None:
    with Tracker() as tracker:
        tracker.make_room(tmp_path, 100)
        tracker.make_room(tmp_path / "not there", 100)
        room = tracker.take_room()
        assert room is not None and os.fstat(room.fileno()).st_size == 100
        room.close()
        tracker.make_room(tmp_path, 100)
    assert tracker.take_room() is None and not os.listdir(tmp_path)
