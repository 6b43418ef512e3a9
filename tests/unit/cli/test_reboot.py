"""``torpor reboot`` whose standard output takes nothing; nothing is rebooted here."""

import sys
from contextlib import suppress

import pytest

from torpor.cli import torpor
from torpor.containers.reboot import jump, ledger, saving


@pytest.fixture
def rebooted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One thing is marked, and can be saved; with which kernels the machine was rebooted."""
    done: list[object] = []
    monkeypatch.setattr(jump, "insist_it_comes_back", lambda: None)
    monkeypatch.setattr(saving, "look", lambda _: [ledger.Entry("job:one")])
    monkeypatch.setattr(jump, "go", done.append)
    return done


def _on_a_full_disk(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    stream = open("/dev/full", "w")  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        code = torpor.main(["reboot", *words])
    with suppress(OSError):
        stream.close()
    return code


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_machine_reboots_all_the_same(
    words: tuple[str, ...],
    rebooted: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _on_a_full_disk(monkeypatch, *words) == 0
    assert rebooted == [None]
    assert "the machine reboots, but standard output takes no more" in (said := capsys.readouterr().err)
    assert "job:one" in said


def test_a_plan_that_cannot_be_shown_is_a_failure(
    rebooted: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _on_a_full_disk(monkeypatch, "--dry-run") == 1
    assert rebooted == []
    assert "no space is left" in capsys.readouterr().err


def test_what_cannot_be_saved_is_named_as_ever(
    rebooted: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saving, "look", lambda _: [ledger.Entry("job:one", state=ledger.LEFT, why="it is odd")])
    assert _on_a_full_disk(monkeypatch) == 1
    assert rebooted == []
    said = capsys.readouterr().err
    assert "nothing is done, but standard output" in said and "job:one cannot be saved; nothing was done" in said
