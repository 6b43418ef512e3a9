"""Pages that nobody waits for go no faster than wished; one that somebody needs goes at once."""

import pytest

from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import metered

LIMIT = PAGE_SIZE * 1000


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(metered, "time", made)
    return made


def _read(ident: int, start: int, n_bytes: int, /) -> memoryview:
    return memoryview(bytes(n_bytes))


def test_many_pages_go_as_fast_as_wished(clock: _Clock) -> None:
    read, begun, total = metered.Pace(LIMIT).over(_read), clock.now, 0
    while clock.now < begun + 10:
        before = clock.now
        total += read(1, 0, 4 << 20).nbytes
        assert clock.now - before <= 0.051
    assert total == pytest.approx(LIMIT * 10, rel=0.05)


def test_who_needs_a_page_does_not_wait(clock: _Clock) -> None:
    read, begun = metered.Pace(LIMIT).over(_read), clock.now
    for _ in range(5000):
        read(1, 0, PAGE_SIZE)
    assert clock.now == begun
    # What they have taken is taken of the others.
    total = 0
    while clock.now < begun + 5:
        total += read(1, 0, 4 << 20).nbytes
    assert total < LIMIT / 2


def test_without_a_limit_nothing_is_between() -> None:
    assert metered.Pace().over(_read) is _read
