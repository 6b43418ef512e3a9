"""How a table is gone through: what a stage begins and ends with, on an imagined tree."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from torpor.base.errors import TargetGoneError
from torpor.engine.dump.phases import AFTER, BEFORE, FROZEN, LAST, DumpPhase
from torpor.engine.dump.run import run
from torpor.engine.dump.session import DumpSession
from torpor.engine.stats import DumpStats


class Imagined:
    """A session whose parts take note of what is done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.stats = DumpStats()
        parts = {name: self._part(name) for name in ("tree", "context", "visit")}
        self.new = SimpleNamespace(is_last=False)
        self.session = cast(DumpSession, SimpleNamespace(processes=[], stats=self.stats, new=self.new, **parts))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.done.append(f"{name} begins")
        try:
            yield
        finally:
            self.done.append(f"{name} ends{', frozen time known' if 'frozen' in self.stats.watch.us else ''}")

    def phase(self, name: str, stage: int, error: Exception | None = None) -> DumpPhase:
        def go(session: DumpSession) -> None:
            self.done.append(name)
            if error is not None:
                raise error

        return DumpPhase(name, go, "for the test", stage)


BEGINS = ["tree begins", "context begins", "visit begins"]
ENDS = [f"{name} ends, frozen time known" for name in ("visit", "context", "tree")]


def test_the_tree_is_held_for_the_frozen_stage_alone() -> None:
    """Whatever the order in the table; and this is the time that is counted."""
    imagined = Imagined()
    table = [
        imagined.phase("afterwards", AFTER),
        imagined.phase("read", FROZEN),
        imagined.phase("look", BEFORE),
        imagined.phase("write", FROZEN),
    ]
    run(imagined.session, table)
    assert imagined.done == ["look", *BEGINS, "read", "write", *ENDS, "afterwards"]


def test_what_fails_before_has_stopped_nobody() -> None:
    imagined = Imagined()
    with pytest.raises(TargetGoneError):
        run(imagined.session, [imagined.phase("look", BEFORE, TargetGoneError("gone")), imagined.phase("read", FROZEN)])
    assert imagined.done == ["look"]
    assert "frozen" not in imagined.stats.watch.us


def test_what_fails_while_frozen_lets_the_tree_go() -> None:
    imagined = Imagined()
    with pytest.raises(TargetGoneError):
        run(
            imagined.session,
            [imagined.phase("read", FROZEN, TargetGoneError("gone")), imagined.phase("afterwards", AFTER)],
        )
    assert imagined.done == [*BEGINS, "read", *ENDS]


def test_what_fails_in_the_end_is_a_failure_while_the_tree_lives() -> None:
    imagined = Imagined()
    with pytest.raises(TargetGoneError):
        run(imagined.session, [imagined.phase("close", LAST, TargetGoneError("gone")), imagined.phase("dismiss", LAST)])
    assert imagined.done == [*BEGINS, *ENDS, "close", "dismiss"]


def test_what_fails_in_the_end_is_a_warning_when_the_tree_is_dead(capfd: pytest.CaptureFixture[str]) -> None:
    """The images are whole: a failure that is told would be taken for one of the dump."""
    imagined = Imagined()
    imagined.new.is_last = True
    run(imagined.session, [imagined.phase("close", LAST, TargetGoneError("gone")), imagined.phase("dismiss", LAST)])
    assert imagined.done == [*BEGINS, *ENDS, "close", "dismiss"]
    assert "the checkpoint is complete, but afterwards: gone" in capfd.readouterr().err
