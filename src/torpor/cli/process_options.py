"""What ``torpor check``, ``checkpoint`` and ``restore`` may be told of processes, as the table of options has it.

An option that says what a checkpoint may carry is one of the check as well, which so looks at just what the checkpoint
would do, and of the restore, where whoever says it again says nothing new.  By its ``keyword`` it is an argument of
:func:`torpor.dump`, :func:`torpor.problems` and :func:`torpor.restore`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torpor.base.errors import UsageError
from torpor.engine import option_table
from torpor.engine.option_table import CHECK, CHECKPOINT, RESTORE

__all__ = ["CHECK", "CHECKPOINT", "OPTIONS", "RESTORE", "Option", "add", "criu_words", "keywords", "names"]


@dataclass(frozen=True, slots=True)
class Option:
    """``value``: how what it takes is called, "" for a switch.  ``many``: it may be given several times."""

    name: str
    text: str
    at: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    many: bool
    #: The name of the argument in Python.
    keyword: str
    #: What ``--help`` says at the restore, where it is something else.
    restored: str
    #: How criu(8) calls it; "" where it has none, and always allows it.
    crius: str

    @property
    def field(self) -> str:
        """The name in a parsed command line."""
        return self.name.replace("-", "_")


def _of_row(row: option_table.Option, people: option_table.People) -> Option:
    return Option(
        people.name or row.name, people.text or row.text, people.at, people.value, people.choices, row.is_many,
        row.keyword, people.restored, row.name if row.takes else "",
    )  # fmt: skip


#: Those that people have at a command, in the order of the table.
OPTIONS = tuple(
    _of_row(row, row.people)
    for row in option_table.OPTIONS
    if row.people is not None and row.people.at and not row.people.only_python
)


def add(parser: argparse.ArgumentParser, command: str) -> None:
    """The options of *command*."""
    for option in _of(command):
        text = option.restored if command == RESTORE and option.restored else option.text
        flag = f"--{option.name}"
        if not option.value:
            parser.add_argument(flag, action="store_true", help=text)
        elif option.many:
            parser.add_argument(flag, action="append", default=[], metavar=option.value, help=text)
        else:
            choices = option.choices or None
            metavar = None if choices else option.value
            parser.add_argument(flag, choices=choices, metavar=metavar, help=text)


def keywords(args: argparse.Namespace, command: str) -> dict[str, object]:
    """What *args* say, as arguments of the function in Python that does the same as *command*.  UsageError."""
    found: dict[str, object] = {}
    for option in _of(command):
        said = getattr(args, option.field)
        if said:
            found[option.keyword] = _VALUES[option.name](said) if option.name in _VALUES else said
    if found.get("tcp_established") and found.get("tcp_close"):
        raise UsageError("--tcp-established and --tcp-close exclude each other")
    return found


def criu_words(args: argparse.Namespace) -> list[str]:
    """What the line of a check says, in the words of a criu command line."""
    words = []
    for option in (option for option in _of(CHECK) if option.crius):
        said, name = getattr(args, option.field), option.crius
        if option.many:
            words += [f"--{name}={each}" for each in said]
        elif said:
            words.append(
                f"--{name}" if said is True else f"--{name}={said}{'M' if option.name == 'ghost-limit' else ''}"
            )
    return words


def names(command: str) -> tuple[str, ...]:
    """The names of the options of *command*."""
    return tuple(option.name for option in _of(command))


def _of(command: str) -> Iterator[Option]:
    return (option for option in OPTIONS if command in option.at)


def _mebibytes(text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"--ghost-limit {text} is no number of MiB")
    return int(text) << 20


def _inherited(texts: list[str]) -> tuple[tuple[int, str], ...]:
    from torpor.engine.option_words import inherited

    try:
        return tuple(inherited(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"--inherit-fd {' '.join(texts)}: {error}") from None


def _may_cut(said: bool) -> Callable[[str, int, int], bool]:
    """Whoever said so on a terminal is asked once more, by the file's name."""
    import sys

    def ask(name: str, size: int, former: int) -> bool:
        print(f"{name} has grown from {former} to {size} bytes. Cut it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask if said and sys.stdin.isatty() else lambda *_: said


_VALUES: dict[str, Callable[[Any], object]] = {
    "ghost-limit": _mebibytes,
    "inherit-fd": _inherited,
    "external": tuple,
    "rewind-files": _may_cut,
    "no-verify": lambda said: not said,
}
