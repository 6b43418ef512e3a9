"""Torpor's own command once more, in a process of its own: as a user would type it, and with a time limit."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torpor.base.errors import EngineError
from torpor.containers.commands import TookTooLongError, run_line

_NAME = "torpor"


def run(words: Sequence[str], timeout_s: float | None = None, before: Sequence[str] = ()) -> str:
    """What ``torpor WORDS`` prints; EngineError with what it said where it fails.

    TookTooLongError after *timeout_s*, when it has been ended as Ctrl-C would have.  *before*: words that the command
    line begins with.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from torpor.cli.torpor import command; command()"
    line = [*before, sys.executable, "-I", "-S", "-c", program, *words]
    try:
        return run_line(_NAME, line, timeout_s, to_its_end=False)
    except TookTooLongError:
        raise
    except EngineError as error:
        plain = EngineError(str(error).removeprefix(f"{_NAME}: ").replace(f"{_NAME}: ", ""), hint=error.hint)
        plain.__notes__ = list(getattr(error, "__notes__", ()))
        raise plain from None
