"""When a tree without a time namespace of its own needs one."""

import time

import pytest

from torpor.images import messages as m
from torpor.images.store import store_one
from torpor.images.stores.memory import MemStore
from torpor.objects.ns import timens


def _store(monotonic_s: float, boottime_s: float) -> MemStore:
    """Images whose clocks were that far behind ours."""
    store, entry = MemStore(), m.timens_entry()
    for shown, clock, behind_s in (
        (entry.monotonic, time.CLOCK_MONOTONIC, monotonic_s),
        (entry.boottime, time.CLOCK_BOOTTIME, boottime_s),
    ):
        shown.tv_sec, shown.tv_nsec = divmod(time.clock_gettime_ns(clock) - int(behind_s * 1e9), 10**9)
    store_one(store, "TIMENS", entry, timens.OUTER)
    return store


@pytest.mark.parametrize(
    ("monotonic_s", "boottime_s", "is_wanted"),
    [(0.1, 0.1, False), (-5, -5, True), (0.1, -5, True), (-5, 0.1, True), (30, 30, True), (0.1, 30, True)],
)
def test_clocks_that_neither_go_back_nor_jump_need_none(monotonic_s: float, boottime_s: float, is_wanted: bool) -> None:
    assert timens.is_wanted(_store(monotonic_s, boottime_s)) == is_wanted


def test_images_without_clocks_need_none() -> None:
    assert not timens.is_wanted(MemStore())


def test_both_clocks_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is kept from running between two readings tries again; always kept, it takes the best that it has had."""
    now_ns, pauses = 0, [1_000_000, 300_000, 0]

    def read(clock: int) -> int:
        nonlocal now_ns
        now_ns += 1000 + (pauses.pop(0) if clock == time.CLOCK_BOOTTIME and pauses else 0)
        return now_ns

    monkeypatch.setattr(time, "clock_gettime_ns", read)
    for waits in ([1_000_000, 300_000, 0], [700_000, 50_000, *[900_000] * 100]):
        pauses[:] = waits
        shown = timens._own_clocks()
        assert abs(shown["boottime"] - shown["monotonic"]) <= min(waits) // 2 + 1000
