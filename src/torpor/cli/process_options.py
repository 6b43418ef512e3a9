"""What ``torpor check``, ``checkpoint`` and ``restore`` may be told of processes: one table, for Python as well.

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

CHECK, CHECKPOINT, RESTORE = "check", "checkpoint", "restore"
GHOST_LIMIT_MIB = 64
_EVERYWHERE = (CHECK, CHECKPOINT, RESTORE)
_BEFORE = (CHECK, CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Option:
    """``value``: how what it takes is called, "" for a switch.  ``many``: it may be given several times."""

    name: str
    text: str
    at: tuple[str, ...] = _EVERYWHERE
    value: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    python: str = ""
    #: What ``--help`` says at the restore, where it is something else.
    restored: str = ""

    @property
    def keyword(self) -> str:
        """The name of the argument in Python."""
        return self.python or self.field

    @property
    def field(self) -> str:
        """The name in a parsed command line."""
        return self.name.replace("-", "_")


OPTIONS = (
    Option("leave-running", "it goes on after the checkpoint", (CHECKPOINT,)),
    Option("leave-stopped", "it is left stopped, as by SIGSTOP", (CHECKPOINT, RESTORE)),
    Option("shell-job", "the processes belong to this terminal's session, and stay with it"),
    Option(
        "tcp-established", "keep TCP connections", restored="with the TCP connections of the checkpoint (the default)"
    ),
    Option("tcp-close", "TCP connections will be found closed"),
    Option("file-locks", "file locks may be held (the default)"),
    Option("link-remap", "link deleted but hard-linked files into their place"),
    Option("external-pipes", "pipes may lead to other processes; nobody is at their other end after the restore"),
    Option("external-unix", "unix sockets may lead to other processes"),
    Option(
        "external",
        "something outside of the tree that is not carried, in the words of criu(8)",
        value="WHAT",
        many=True,
    ),
    Option(
        "ghost-limit",
        f"deleted files to keep, up to so many MiB each (default: {GHOST_LIMIT_MIB})",
        _BEFORE,
        value="MIB",
    ),
    Option(
        "exec-processes",
        "what becomes of processes that entered the pid namespace from outside, as with podman exec: nothing is done "
        "while there are any (refuse, the default), they are taken along, or left out and lost",
        _BEFORE,
        value="HOW",
        choices=("refuse", "carry", "leave-out"),
    ),
    Option("force", "put the images into PATH although there are other files in it, which stay", (CHECKPOINT,)),
    Option("no-verify", "take images that are not as they were written", (RESTORE,), python="verify"),
    Option(
        "file-validation",
        "what tells whether a file is the one that was mapped: the build id of code (the default), or its size alone",
        (RESTORE,),
        value="HOW",
        choices=("buildid", "filesize"),
    ),
    Option(
        "rewind-files",
        "cut files that have grown since to the length that they had, after asking where this is a terminal",
        (RESTORE,),
    ),
    Option(
        "inherit-fd",
        "a descriptor of the shell that stands for a file that is outside, as fd[3]:pipe:[1234]",
        (RESTORE,),
        value="FD",
        many=True,
        python="inherit_fds",
    ),
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
    if command != RESTORE:
        found.setdefault("ghost_limit", GHOST_LIMIT_MIB << 20)
    if found.get("tcp_established") and found.get("tcp_close"):
        raise UsageError("--tcp-established and --tcp-close exclude each other")
    return found


def criu_words(args: argparse.Namespace) -> list[str]:
    """What the line of a check says, in the words of a criu command line."""
    words = []
    for option in (option for option in _of(CHECK) if option.name != _PIPES):
        said = getattr(args, option.field)
        name = _CRIUS_NAMES.get(option.name, option.name)
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
    from torpor.cli.criu.options import inherited

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
#: criu(8) always allows it, and so do container engines, who hold the other ends.
_PIPES = "external-pipes"
_CRIUS_NAMES = {"external-unix": "ext-unix-sk"}
