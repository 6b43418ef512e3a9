"""What is told to whoever asked: what came of a deed that cannot be taken back; names that are somebody else's."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def tell(text: str, out: TextIO | None = None, what: str = "this is done") -> None:
    """Write *text* as a line to *out* (standard output), at once.

    That it cannot be written (a full disk, a terminal or a reader that has gone away) makes nothing undone, and no
    failure of what was done: it goes to standard error instead, with *what* happens all the same.
    """
    stream = sys.stdout if out is None else out
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        _drop(stream)
        if not isinstance(error, BrokenPipeError):
            try:
                sys.stderr.write(f"torpor: {what}, but standard output takes no more: {error.strerror}\n{text}\n")
                sys.stderr.flush()
            except OSError:
                _drop(sys.stderr)


def show(chunk: bytes) -> None:
    """Write what a program that runs has said to standard output, at once.

    A full disk is no failure of the program: that it shows no more is said once, and the rest goes nowhere.
    BrokenPipeError where the reader has gone away.
    """
    try:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop(sys.stdout)
        try:
            sys.stderr.write(f"torpor: standard output takes no more: {error.strerror}; the log has all of it\n")
            sys.stderr.flush()
        except OSError:
            _drop(sys.stderr)


def printable(line: str) -> str:
    """Without what would make a terminal do things, and what no terminal shows: names may hold any byte."""
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)


def _drop(stream: TextIO) -> None:
    """What the stream holds back is not to fail once more at the end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, stream.fileno())
        os.close(null)
