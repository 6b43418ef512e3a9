"""Being broken off by a signal, as commands are: its exception comes in the midst of whatever the main thread does."""

import signal
from collections.abc import Callable
from types import FrameType


class _BrokenOff(BaseException):
    """The signal has come."""


def break_off(work: Callable[[], object], after_s: float) -> None:
    """Do *work*, which would go on for ever, until a signal comes after a time; in the main thread."""

    def come(number: int, frame: FrameType | None) -> None:
        raise _BrokenOff

    before = signal.signal(signal.SIGALRM, come)
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        while True:
            work()
    except _BrokenOff:
        pass
    finally:
        signal.signal(signal.SIGALRM, before)
