"""The log: lines as CRIU writes them, because runc and Podman search them.

``(00.012345) Error (module.py:12): text``.  Not :mod:`logging`: its import alone costs a tenth of a small dump, and
nothing here needs handlers or hierarchies.  One log a process; lines are written with one ``write`` each, so that what
was logged survives a SIGKILL.
"""

from __future__ import annotations

import os
import sys
import time

ERROR = 1
WARN = 2
INFO = 3
DEBUG = 4

_start = time.monotonic()
_fd = 2
_level = WARN
_first_error: str | None = None


def configure(*, fd: int, level: int) -> None:
    """Send lines up to *level* to descriptor *fd* (borrowed, not closed here)."""
    global _fd, _level
    _fd, _level = fd, level


def level() -> int:
    """The level in force; lets a caller skip the work of composing a debug line."""
    return _level


def descriptor() -> int:
    """Where the lines go."""
    return _fd


def first_error() -> str | None:
    """The first error line of this run, for a short message where the log itself is out of sight (RPC)."""
    return _first_error


def forget_errors() -> None:
    """Another run begins in this process: what went wrong before is none of its errors."""
    global _first_error  # noqa: PLW0603 - one log a process
    _first_error = None


def error(text: str, *, where: str = "") -> None:
    """Something failed; the command will exit with a failure because of it.  *where*, if not the caller's place."""
    global _first_error  # noqa: PLW0603 - one log a process
    if _first_error is None:
        _first_error = text
    _write(ERROR, f"Error {f'({where})' if where else _where()}: {text}")


def warn(text: str) -> None:
    """Something is not as it should be, but the work goes on."""
    _write(WARN, f"Warn  {_where()}: {text}")


def info(text: str) -> None:
    """Write a line of level INFO: a step of the work that is done."""
    _write(INFO, text)


def debug(text: str) -> None:
    """Details for whoever searches a fault."""
    _write(DEBUG, text)


def _where() -> str:
    frame = sys._getframe(2)
    return f"({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"


def _write(level: int, text: str) -> None:
    if level > _level:
        return
    now = time.monotonic() - _start
    line = f"({now:09.6f}) {text}\n".encode(errors="replace")
    try:
        os.write(_fd, line)
    except OSError:
        # A full disk or a closed pipe must not turn a good dump into a bad one.
        return
