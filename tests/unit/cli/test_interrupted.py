"""What is said, and the exit code, where a signal ends a command and more goes wrong on the way back."""

from types import SimpleNamespace

import pytest

from torpor.base.errors import TargetGoneError
from torpor.cli import torpor
from torpor.cli.criu import main as criu
from torpor.kernel import interrupts


def _stopped(error: BaseException) -> None:
    """As if a thread that still works for us were to be given back."""
    try:
        raise interrupts.Interrupted(15)
    finally:
        try:
            raise ProcessLookupError(3, "No such process")
        except ProcessLookupError as cause:
            raise error from cause


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TargetGoneError("thread 7 of pid 7 is gone"), "interrupted; on the way back: thread 7 of pid 7 is gone"),
        (BufferError("exported pointers exist"), "interrupted; nothing was left half done"),
    ],
)
def test_torpor(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = SimpleNamespace(main=lambda args: _stopped(error))
    monkeypatch.setattr(torpor, "_parse", lambda words: (command, SimpleNamespace(verbose=False)))
    monkeypatch.setattr(interrupts, "catch", lambda: None)
    assert torpor.main([]) == 128 + 15
    assert capsys.readouterr().err == f"torpor: {said}\n"


def test_criu() -> None:
    with pytest.raises(TargetGoneError) as met:
        _stopped(TargetGoneError("thread 7 of pid 7 is gone"))
    assert criu.report(met.value) == 128 + 15


def test_an_error_by_itself() -> None:
    assert interrupts.behind(TargetGoneError("gone")) is None
