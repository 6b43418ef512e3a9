"""When rounds over memory end: by an aim, a number, a time, or because they do not make it less."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import torpor
from torpor.base.errors import MigrationError
from torpor.engine.stats import DumpStats
from torpor.images.errors import StoreError
from torpor.images.stores.memory import MemStore
from torpor.migrate import rounds
from torpor.migrate.metered import Metered
from torpor.migrate.rounds import CANCEL, STOP, Aim, Round, Rounds
from torpor.objects.memory.tracking import Tracker

#: Pages that go in a second.
SPEED = 1000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(f"{rounds.__name__}.time.monotonic", made.monotonic)
    return made


def _run(home: Path, aim: Aim, written: Iterator[int], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[Round]:
    """The rounds that a tree takes that has written so many pages by each of them."""
    parents = []

    def pre_dump(pid: int, path: Path, **words: object) -> DumpStats:
        parents.append((path.name, words["parent"]))
        n_pages = next(written)
        clock.now += n_pages / SPEED
        return DumpStats(pages_written=n_pages)

    monkeypatch.setattr(torpor, "pre_dump", pre_dump)
    told: list[Round] = []
    made = Rounds(aim, told.append)
    last = made.run(1, home, Tracker(), MemStore, {})
    assert told == made.done and last == (parents[-1][0] if parents else "")
    assert parents == [(f"round{n}", f"../round{n - 1}" if n > 1 else "") for n in range(1, len(told) + 1)]
    return told


def test_they_end_when_the_rest_would_take_no_longer_than_it_may(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = _run(tmp_path, Aim(0.1), iter((10_000, 1000, 100, 10, 1)), clock, monkeypatch)
    assert [each.n_bytes >> 12 for each in done] == [10_000, 1000, 100] and done[-1].rest_s < 0.1


def test_who_aims_at_a_time_is_not_to_get_all_of_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As long as each round leaves much less than the one before, and what it leaves takes its time."""
    (tmp_path / "less").mkdir()
    done = _run(tmp_path / "less", Aim(1.0), iter((10_000, 2000, 1300, 1000, 1)), clock, monkeypatch)
    assert [each.n_bytes >> 12 for each in done] == [10_000, 2000, 1300, 1000] and done[1].rest_s < 1
    done = _run(tmp_path, Aim(1.0), iter((10_000, 2000, 1300, 900, 600, 200, 1)), clock, monkeypatch)
    assert [each.n_bytes >> 12 for each in done] == [10_000, 2000, 1300, 900, 600, 200]


def test_they_end_when_they_do_not_make_it_less(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(_run(tmp_path, Aim(0.1, 50), iter([10_000] * 50), clock, monkeypatch)) == 3


@pytest.mark.parametrize("most", [0, 1, 2])
def test_there_are_no_more_than_wished(
    most: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(_run(tmp_path, Aim(0.0, most), iter((10_000, 5000, 2000)), clock, monkeypatch)) == most


def test_time_is_up(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = (10_000, 8000, 6000, 4000)
    assert len(_run(tmp_path, Aim(0.0, 9, 15.0, STOP), iter(written), clock, monkeypatch)) == 2
    (tmp_path / "again").mkdir()
    with pytest.raises(MigrationError, match="runs on here"):
        _run(tmp_path / "again", Aim(0.0, 9, 15.0, CANCEL), iter(written), clock, monkeypatch)


def test_who_would_rather_give_up_is_not_stopped_before_time_is_up(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rounds that do not make it less, and more of them than are wished for others, end nothing then."""
    n_done = 0

    def written() -> Iterator[int]:
        nonlocal n_done
        while True:
            yield 1000
            n_done += 1

    with pytest.raises(MigrationError, match=r"has not gone in 16 s \(16 rounds\)"):
        _run(tmp_path, Aim(0.1, 3, 15.5, CANCEL), written(), clock, monkeypatch)
    assert n_done == 15
    (tmp_path / "calmer").mkdir()
    numbers = iter([1000] * 10 + [50, 1])
    assert len(_run(tmp_path / "calmer", Aim(0.1, 3, 15.5, CANCEL), numbers, clock, monkeypatch)) == 11


def test_a_round_is_broken_off_when_time_is_up(clock: Clock) -> None:
    gone: list[int] = []

    class Way:
        def write(self, data: bytes | memoryview, /) -> int:
            gone.append(len(data))
            clock.now += 1
            return len(data)

        def finish(self) -> None: ...

        def close(self) -> None: ...

    way, made = Metered(Way()), Rounds(Aim(0.1, 3, 2.5, CANCEL), lambda made: None)
    with pytest.raises(MigrationError, match="it runs on here"), way.watched(made.look):
        while True:
            way.write(b"12")
    assert gone == [2, 2, 2]
    way.write(b"the end")
    others = Rounds(Aim(0.1, 3, 2.5, STOP), lambda made: None)
    clock.now += 100
    with way.watched(others.look):
        way.write(b"more")


def test_a_disk_that_is_full_late_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "pages-1.img").write_bytes(bytes(10))
    monkeypatch.setattr(os, "fdatasync", full)
    rounds._write_through(tmp_path)  # little is left to the kernel
    monkeypatch.setattr(rounds, "_MUCH_BYTES", 9)
    with pytest.raises(StoreError, match=r"pages-1.img: cannot be written: No space left on device"):
        rounds._write_through(tmp_path)
