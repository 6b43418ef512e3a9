"""The line that is shown while waiting, and what it goes by."""

import os
import sys
import time

import pytest

from harness.events import time_limit_s
from torpor.cli import progress
from torpor.cli.progress import Progress, line_of, memory_of_tree


def test_how_far_how_fast_and_how_long() -> None:
    line = line_of("checkpointing web", 512 << 20, 2 << 30, 2.0)
    assert "25% of 2.0 GiB" in line and "268 MB/s" in line and "6 s left" in line
    assert line.count("#") == 6


def test_the_time_left_is_not_guessed_at_once() -> None:
    assert "left" not in line_of("x", 1 << 10, 2 << 30, 0.5)
    assert "10 min left" in line_of("x", 1 << 30, 11 << 30, 60.0)


def test_sizes_are_in_the_largest_unit_that_fits() -> None:
    cases = {
        0: "0 B",
        1023: "1023 B",
        1024: "1.0 KiB",
        1048522: "1023.9 KiB",
        1048570: "1.0 MiB",
        5 << 40: "5120.0 GiB",
    }
    assert {n_bytes: progress.size(n_bytes) for n_bytes in cases} == cases


def test_it_is_not_done_before_it_is() -> None:
    line = line_of("x", 3 << 30, 2 << 30, 2.0)
    assert "99% of" in line and "left" not in line


def test_without_a_total_something_moves() -> None:
    first, then = (line_of("x", 0, 0, 1.5, step) for step in (0, 9))
    assert first != then and "1.5 s" in first and "%" not in first


def test_the_memory_of_a_tree_is_about_its_own() -> None:
    block = bytearray(os.urandom(1 << 20)) * 32
    found = memory_of_tree(os.getpid())
    assert len(block) <= found < len(block) + (2 << 30)


def test_what_is_stopped_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_STEPS_PER_S", 1000)
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return True

    with Progress("checkpointing web", 1 << 30, stopped=stopped):
        deadline = time.monotonic() + time_limit_s(10)
        while len(asked) < 3 and time.monotonic() < deadline:
            os.sched_yield()
    said = capsys.readouterr().err
    assert "% of 1.0 GiB" in said and "; it is stopped meanwhile" in said and said.endswith("\r\x1b[K")
