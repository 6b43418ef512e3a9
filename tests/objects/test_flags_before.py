"""Flags of mappings are read before a tree is stopped, and looked at again when nobody waits for that."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.events import wait_said
from harness.skips import need_tracking
from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.engine.dump import collecting, earlier
from torpor.engine.dump.run import dump, pre_dump
from torpor.engine.options import DumpOptions
from torpor.images import kinds
from torpor.images.store import load_one
from torpor.images.stores.memory import MemStore
from torpor.kernel.procfs.small import iter_pieces
from torpor.kernel.procfs.stat import read_stat
from torpor.objects.memory.tracking import Tracker
from torpor.objects.memory.vmas import MADVICE

pytestmark = pytest.mark.root
#: Has 8 MiB, and does to them what it is told by signals: other advice for them, or for as much that is new.
_PROGRAM = """
import mmap, signal, sys
held = [mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)]
held[0][:] = bytes(range(256)) * (32 << 10)
def change(number, frame):
    if number == signal.SIGUSR2:
        held.append(mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    held[-1].madvise(mmap.MADV_DONTDUMP)
    print("changed", flush=True)
signal.signal(signal.SIGUSR1, change)
signal.signal(signal.SIGUSR2, change)
print("ready", flush=True)
while True:
    signal.pause()
"""
_ADVISE, _MAP = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


@pytest.fixture
def process(said: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with (
        open(said, "wb") as out,
        subprocess.Popen(
            [sys.executable, "-S", "-c", _PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as made,
    ):
        try:
            assert wait_said(said, "ready")
            yield made
        finally:
            made.kill()


@pytest.fixture
def looks(process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose page tables the kernel has looked through for smaps, and when the images had gone."""
    found: list[str] = []

    def told(path: str, last: bytes) -> Iterator[str]:
        if path.endswith("smaps"):
            is_stopped = read_stat(Pid(process.pid)).state == "t"
            found.append("stopped" if is_stopped else "running")
        return iter_pieces(path, last)

    monkeypatch.setattr("torpor.kernel.procfs.maps.iter_pieces", told)
    return found


class _Also(MemStore):
    """Where the images go besides."""

    def __init__(self, looks: list[str]) -> None:
        super().__init__()
        self._looks = looks

    def commit(self, *words: object) -> None:
        self._looks.append("gone")


def _before_the_stop(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    make = earlier.Earlier.__init__

    def made(self: earlier.Earlier, *words: Any) -> None:
        make(self, *words)
        change()

    monkeypatch.setattr(earlier.Earlier, "__init__", made)


def _tell(process: "subprocess.Popen[bytes]", said: Path, number: int) -> None:
    process.send_signal(number)
    assert wait_said(said, "changed")


def _goes_on(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has not been left stopped, and sleeps once it has done what it was stopped in."""
    while (state := read_stat(Pid(process.pid)).state) in "RD":
        os.sched_yield()
    return state == "S"


def test_page_tables_are_looked_through_for_them_when_all_has_gone(
    process: "subprocess.Popen[bytes]", looks: list[str], tmp_path: Path
) -> None:
    pid = process.pid
    dump(pid, tmp_path, DumpOptions(also=_Also(looks)))
    first = looks.index("stopped")
    assert looks[first - 1 :] == ["gone", "stopped"] and "running" in looks[: first - 1]


def test_of_a_round_they_are_not_looked_at_again(
    process: "subprocess.Popen[bytes]", looks: list[str], tmp_path: Path
) -> None:
    pre_dump(process.pid, tmp_path)
    assert "running" in looks and "stopped" not in looks


def test_of_the_rounds_that_follow_they_are_looked_at_only_where_something_is_new(
    process: "subprocess.Popen[bytes]", said: Path, looks: list[str], tmp_path: Path
) -> None:
    need_tracking()

    def look(name: str) -> tuple[list[str], int]:
        (tmp_path / name).mkdir()
        before = f"../{names[-1]}" if names else ""
        names.append(name)
        looks.clear()
        stats = pre_dump(process.pid, tmp_path / name, DumpOptions(tracker=tracker, parent=before))
        return looks[:], stats.pages_written

    names: list[str] = []
    with Tracker() as tracker:
        first, n_pages = look("first")
        assert set(first) == {"running"} and n_pages >= 2048
        second, n_pages = look("second")
        assert not second and n_pages < 1024
        _tell(process, said, _MAP)
        third, n_pages = look("third")
        assert set(third) == {"running"} and n_pages < 1024
        assert look("fourth")[0] == []
        tracker.forget_flags()
        assert set(look("fifth")[0]) == {"running"}


@pytest.mark.parametrize(("recent_s", "before_the_stop"), [(1000, []), (0, ["running"])])
def test_the_dump_after_rounds_takes_what_has_just_been_read(
    recent_s: float,
    before_the_stop: list[str],
    process: "subprocess.Popen[bytes]",
    looks: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is looked at again all the same."""
    need_tracking()
    monkeypatch.setattr(collecting, "_RECENT_S", recent_s)
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    with Tracker() as tracker:
        pre_dump(process.pid, tmp_path / "first", DumpOptions(tracker=tracker))
        looks.clear()
        options = DumpOptions(also=_Also(looks), tracker=tracker, parent="../first")
        dump(process.pid, tmp_path / "last", options)
    assert looks == [*before_the_stop, "gone", "stopped"]


def test_what_has_changed_since_the_last_round_is_no_image(
    process: "subprocess.Popen[bytes]", said: Path, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tracking()
    monkeypatch.setattr(collecting, "_RECENT_S", 1000)
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    with Tracker() as tracker:
        pre_dump(process.pid, tmp_path / "first", DumpOptions(tracker=tracker))
        _tell(process, said, _ADVISE)
        options = DumpOptions(also=_Also(looks), tracker=tracker, parent="../first")
        with pytest.raises(RefusedError, match="changed the advice for its memory"):
            dump(process.pid, tmp_path / "last", options)
    assert _goes_on(process) and not (tmp_path / "last/inventory.img").exists()


def test_what_has_changed_meanwhile_is_no_image(
    process: "subprocess.Popen[bytes]", said: Path, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _before_the_stop(monkeypatch, lambda: _tell(process, said, _ADVISE))
    with pytest.raises(RefusedError, match="changed the advice for its memory"):
        dump(process.pid, tmp_path, DumpOptions(also=_Also(looks)))
    assert _goes_on(process) and not (tmp_path / "inventory.img").exists()


def test_what_is_new_has_the_flags_that_it_has(
    process: "subprocess.Popen[bytes]", said: Path, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _before_the_stop(monkeypatch, lambda: _tell(process, said, _MAP))
    also = _Also(looks)
    dump(process.pid, tmp_path, DumpOptions(also=also))
    assert looks[looks.index("stopped") :] == ["stopped", "gone"]
    advised = [vma for vma in load_one(also, kinds.MM, process.pid).vmas if vma.madv & 1 << MADVICE["dd"]]
    assert 1 << 20 in [vma.end - vma.start for vma in advised]
