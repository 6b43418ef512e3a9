"""Signals that ask us to end: as an exception where work can be taken back, held back where it must come to its end.

``catch`` is for commands: Ctrl-C and SIGTERM raise, so that everything borrowed is given back on the way up.  ``held``
is for whoever passes a point of no return: from there to the end of the block no signal changes our way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from torpor.base import log
from torpor.base.typed import NoReturn
from torpor.kernel import signal

#: What cannot be held back (SIGKILL, SIGSTOP), ends nobody by itself, or says that the program itself is at fault.
_NOT_HELD = frozenset(
    (
        signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSEGV,
        signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT,
        32, 33,  # the C library's own
    )
)  # fmt: skip
_SIGRTMAX = 64


class Interrupted(BaseException):
    """A signal asks us to stop.  Not an Exception: nobody in between handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def behind(error: BaseException) -> Interrupted | None:
    """What asked us to stop, where *error* was met on the way up: a thread that still works for us cannot be asked."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Interrupted):
        seen = seen.__context__
    return seen


def catch() -> None:
    """From now on the two signals raise."""
    signal.signal(signal.SIGINT, _raise)
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


@contextmanager
def held() -> Iterator[None]:
    """Within the block signals are taken note of only, and sent to us again afterwards.

    Those that ``catch`` has caught stay without effect once the block has succeeded: a command that has done what it
    was asked for ends by itself, and with 0.  Not by a mask: any thread of ours may be the one that a signal is given
    to.  Elsewhere than in the main thread nothing is done, since handlers of Python's run in that one alone.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before: dict[int, object] = {}
    succeeded = False
    try:
        for number in range(1, _SIGRTMAX + 1):
            if number not in _NOT_HELD and signal.getsignal(number) not in (signal.SIG_IGN, None):
                try:
                    before[number] = signal.signal(number, note)
                except ValueError:
                    break
        yield
        succeeded = True
    finally:
        for number, handler in before.items():
            if not (succeeded and handler is _raise):
                signal.signal(number, handler)  # type: ignore[arg-type]
        for number in came:
            if before[number] is _raise:
                log.warn(f"signal {number} came when there was no way back any more")
            else:
                os.kill(os.getpid(), number)


@contextmanager
def told(action: Callable[[int], None]) -> Iterator[None]:
    """Within the block *action* is called with the number of each signal that asks us to end, and nothing else happens.

    Also where they are ``held``, of which nobody hears of these then.  Elsewhere than in the main thread nothing is
    done.
    """

    def tell(number: int, frame: FrameType | None) -> None:
        action(number)

    before: dict[int, object] = {}
    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            try:
                before[which] = signal.signal(which, tell)
            except ValueError:
                break
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
