"""What was changed and is to be taken back: one stack, whatever comes at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.typed import IntEnum

Action = Callable[[], None]


class End(IntEnum):
    """What becomes of a tree at the end of a dump."""

    FAILED = 1
    """The dump has failed: it goes on as if nothing had been."""
    GOES_ON = 2
    """It was asked to go on."""
    STOPPED = 3
    """It stays stopped, for somebody who decides later: most of what was changed stays with it."""
    KILLED = 4
    """It is dead.  What is left of it goes by :class:`torpor.objects.outside.Lasting`."""


#: Of an ordinary change.
LIVES = (End.FAILED, End.GOES_ON)


def do_all(actions: Iterable[Action], first: BaseException | None = None) -> None:
    """Each of them, whatever becomes of the others.

    The first error is raised when all are done; those that come after it, or after *first*, which is an earlier one of
    the caller's, are warnings.
    """
    told = first
    for action in actions:
        try:
            action()
        except BaseException as error:
            if told is None:
                told = error
            else:
                text = error.describe() if isinstance(error, TorporError) else f"{type(error).__name__}: {error}"
                log.warn(f"and then, while going back: {text}")
    if told is not None and told is not first:
        raise told


class UndoStack:
    """Of one dump, or of one restore."""

    def __init__(self) -> None:
        self._changes: list[tuple[Action, tuple[int, ...]]] = []

    def add(self, action: Action, ends: tuple[int, ...] = LIVES) -> None:
        """Have *action*, which takes back a change that has been made, done at one of these *ends*."""
        self._changes.append((action, ends))

    def undo(self, end: int, first: BaseException | None = None) -> None:
        """Take back what is not to be at that *end*, the newest change first; errors as with ``do_all``.

        What it does not mean stays, for the end may still turn out to be another: a failure.
        """
        due = [action for action, ends in self._changes if end in ends]
        self._changes = [change for change in self._changes if end not in change[1]]
        do_all(reversed(due), first)

    def clear(self) -> None:
        """There is no way back."""
        self._changes.clear()
