"""Ctrl-C and SIGTERM as an exception, so that everything borrowed is given back on the way up."""

from __future__ import annotations

from types import FrameType

from torpor.base.typed import NoReturn
from torpor.kernel import signal


class Interrupted(BaseException):
    """A signal asks us to stop.  Not an Exception: nobody in between handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def catch() -> None:
    """From now on the two signals raise."""
    signal.signal(signal.SIGINT, _raise)
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)
