"""A limit for work that may wait for ever on somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torpor.base.errors import TorporError
from torpor.kernel import signal


@contextmanager
def time_limit(seconds: int, what: str) -> Iterator[None]:
    """TorporError when the block takes longer than *seconds* (0: no limit).

    It works by SIGALRM, so in the main thread only; elsewhere there is no limit.
    """
    if not seconds:
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise TorporError(f"{what} took more than {seconds} s", hint="--timeout gives it more")

    try:
        before = signal.signal(signal.SIGALRM, late)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
