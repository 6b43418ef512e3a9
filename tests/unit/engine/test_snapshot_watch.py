"""When a process is stopped again because what it writes while its snapshot is copied uses up the memory."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import pytest

from harness.events import time_limit_s
from torpor.base.errors import NotPermittedError
from torpor.base.ids import Pid
from torpor.engine.dump import snapshots
from torpor.objects.memory.headroom import Headroom
from torpor.objects.model import DumpProcess

_MB = 1 << 20


class _Room:
    """So much is left at each look, and as much as at the last one from then on."""

    def __init__(self, *left_mb: int) -> None:
        self._left = [*left_mb]
        self.is_last = threading.Event()

    def n_bytes(self) -> int:
        if len(self._left) == 1:
            self.is_last.set()
            return self._left[0] * _MB
        return self._left.pop(0) * _MB


class _Process:
    pid = Pid(4711)

    def describe(self) -> str:
        return "pid 4711"


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    found = threading.Event()

    @contextmanager
    def freeze_alone(pid: Pid) -> Iterator[None]:
        assert pid == _Process.pid
        found.set()
        yield

    monkeypatch.setattr(snapshots, "freeze_alone", freeze_alone)
    return found


@pytest.mark.parametrize(
    "left_mb", [(100, 90, 31), (1000, 600, 400), (40, 33, 31), (90, 60)], ids=["near", "fast", "slow", "at once"]
)
def test_it_is_stopped_in_time(left_mb: tuple[int, ...], stopped: threading.Event) -> None:
    with snapshots.watched(cast(DumpProcess, _Process()), cast(Headroom, _Room(*left_mb))):
        assert stopped.wait(time_limit_s(10))


@pytest.mark.parametrize("left_mb", [(100, 90, 80, 70), (33, 33, 33), (40, 1000, 900)], ids=["slow", "no less", "more"])
def test_it_runs_on(left_mb: tuple[int, ...], stopped: threading.Event) -> None:
    room = _Room(*left_mb)
    with snapshots.watched(cast(DumpProcess, _Process()), cast(Headroom, room)):
        assert room.is_last.wait(time_limit_s(10))
    assert not stopped.is_set()


def test_one_that_is_being_let_go_is_stopped_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, stopped = [0], threading.Event()

    @contextmanager
    def freeze_alone(pid: Pid) -> Iterator[None]:
        stopped.set()
        yield

    def refuse_first(pid: Pid) -> AbstractContextManager[None]:
        tries[0] += 1
        if tries[0] < 3:
            raise NotPermittedError("it is traced by somebody else")
        return freeze_alone(pid)

    monkeypatch.setattr(snapshots, "freeze_alone", refuse_first)
    with snapshots.watched(cast(DumpProcess, _Process()), cast(Headroom, _Room(40, 33, 31))):
        assert stopped.wait(time_limit_s(10))
    assert tries == [3]
