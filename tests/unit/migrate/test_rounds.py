"""When rounds over memory end: by an aim, a number, a time, or because they do not make it less."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import torpor
from torpor.base.errors import MigrationError
from torpor.engine.stats import DumpStats
from torpor.images.stores.memory import MemStore
from torpor.migrate import rounds
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
    last = made.run(1, home, Tracker(), lambda is_last: MemStore(), {})
    assert told == made.done and last == (parents[-1][0] if parents else "")
    assert parents == [(f"round{n}", f"../round{n - 1}" if n > 1 else "") for n in range(1, len(told) + 1)]
    return told


def test_they_end_when_the_rest_would_take_no_longer_than_it_may(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = _run(tmp_path, Aim(0.1), iter((10_000, 1000, 100, 10, 1)), clock, monkeypatch)
    assert [each.n_bytes >> 12 for each in done] == [10_000, 1000, 100] and done[-1].rest_s < 0.1


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
