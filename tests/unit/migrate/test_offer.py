"""What a source says of what it wants to move, and what a destination thinks of it."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from torpor.base.errors import MigrationError
from torpor.migrate import offer
from torpor.migrate.link import Message
from torpor.migrate.offer import File, Offer


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Offer:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    return offer.make(os.getpid(), "", {"tcp_established": True, "own_session": True})


def _problems(offered: Offer, room: Path) -> str:
    return "; ".join(problem.describe() for problem in offer.problems(offered, offered.name, room))


def test_an_offer_is_the_same_on_the_other_side(mine: Offer) -> None:
    assert offer.of(Message("offer", mine.fields())) == mine
    assert os.getpid() in mine.pids and mine.told == ("tcp_established",)
    assert os.path.realpath(sys.executable) in {os.path.realpath(file.path) for file in mine.files}


def test_a_job_brings_its_pids(mine: Offer, tmp_path: Path) -> None:
    assert offer.make(os.getpid(), "name", {}).pids == ()
    assert "taken here" in _problems(mine, tmp_path)
    assert _problems(replace(mine, pids=()), tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": "vax"}, "are vax's"),
        ({"page_bytes": 512}, "512 there"),
        ({"files": (File("/no/such/library.so", 1, ""),)}, "library.so is missing here"),
        ({"files": (File("/bin/sh", 1, "00"),)}, "/bin/sh is another here"),
        ({"memory_bytes": 1 << 60}, "has room for"),
        ({"kind": "job", "name": "../x"}, "cannot name a job"),
    ],
)
def test_what_stands_in_the_way(change: dict[str, object], said: str, mine: Offer, tmp_path: Path) -> None:
    assert said in _problems(replace(mine, pids=(), **change), tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pod"}, {"pids": [0]}, {"pids": ["1"]}, {"told": ["trust"]}, {"cpu": "***"},
        {"files": [["x", 1, ""]]},
        {"files": [["/x", -1, ""]]}, {"memory": -1}, {"name": None},
    ],
)  # fmt: skip
def test_an_offer_that_makes_no_sense(change: dict[str, object], mine: Offer) -> None:
    with pytest.raises(MigrationError, match="makes no sense"):
        offer.of(Message("offer", mine.fields() | change))
