"""Entry of the ``torpor`` command, for people: a subcommand is a module of :mod:`torpor.cli.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from types import ModuleType

from torpor import __version__
from torpor.base import log, utf8
from torpor.base.errors import TorporError, UsageError
from torpor.base.explain import explain
from torpor.base.fds import open_standard
from torpor.base.nearby import near
from torpor.base.typed import NoReturn
from torpor.cli.telling import printable
from torpor.kernel import interrupts

#: Subcommand and what it is for, in the order of the help.
COMMANDS = {
    "run": "start a command as a job, in namespaces of its own",
    "ps": "list the jobs",
    "logs": "show what a job wrote",
    "kill": "end a job",
    "checkpoint": "put a process or job to sleep in files",
    "restore": "wake it again",
    "migrate": "move a process, job or container to another host",
    "receive": "the other end of migrate, which starts it",
    "checkpoints": "list the checkpoints of jobs",
    "tag": "give a checkpoint of a job a name",
    "rm": "remove checkpoints of a job",
    "prune": "remove all but the newest checkpoints",
    "inspect": "show what a checkpoint holds",
    "verify": "whether a checkpoint is still as it was written",
    "check": "what this machine can do, or what stops a process from being checkpointed",
    "survive": "mark what outlives a reboot, and see what became of it",
    "reboot": "reboot, and lose nothing of what is marked",
    "setup": "make torpor the criu that container runtimes find",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    interrupts.catch()
    try:
        module, args = _parse(words)
        log.configure(fd=2, level=log.DEBUG if args.verbose else log.WARN)
        return int(module.main(args))
    except (interrupts.Interrupted, KeyboardInterrupt) as stop:
        return _interrupted(stop)
    except BrokenPipeError:
        return 141
    except Exception as error:
        return _failed(error, words)


def _interrupted(stop: BaseException) -> int:
    left = "; ".join(getattr(stop, "__notes__", ())) or "nothing was left half done"
    sys.stderr.write(f"torpor: interrupted; {left}\n")
    return 128 + (stop.number if isinstance(stop, interrupts.Interrupted) else 2)


def _failed(error: Exception, words: Sequence[str]) -> int:
    stop = interrupts.behind(error)
    if stop is not None and isinstance(error, BufferError):
        return _interrupted(stop)
    known = error if isinstance(error, TorporError) else explain(error)
    if known is not None:
        sys.stderr.write(f"torpor: {'interrupted; on the way back: ' if stop else ''}{_shown(known.describe())}\n")
        return 128 + stop.number if stop else known.exit_code
    if _is_verbose(words):
        raise error
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    sys.stderr.write(f"torpor: bug: {type(error).__name__}: {_shown(str(error))}{notes} (-v shows where)\n")
    return 1


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _is_verbose(words: Sequence[str]) -> bool:
    return "-v" in words or "--verbose" in words


class Parser(argparse.ArgumentParser):
    """One whose errors are ours, and say what was probably meant."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if unknown == message or not unknown.startswith("-"):
            raise UsageError(message, hint=f"{self.prog} --help")
        subparsers = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        chosen = next(subparsers, None)
        parser = chosen.choices.get(self.chosen, self) if chosen is not None else self
        known = [option for action in parser._actions for option in action.option_strings]
        meant = near(unknown.partition("=")[0], known)
        raise UsageError(f"unknown option {unknown}", hint=meant or f"{parser.prog} --help lists what there is")

    #: The subcommand that was named.
    chosen = ""


def parser_for(wanted: Collection[str]) -> Parser:
    """The command line, with the options of the subcommands *wanted*: importing them all costs time."""
    parser = Parser(
        prog="torpor", description="Put running processes to sleep in files, and wake them again.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"torpor {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=purpose, allow_abbrev=False)
        if name in wanted:
            subparser.add_argument(
                "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say what is being done"
            )
            import_module(f"torpor.cli.commands.{name}").add_arguments(subparser)
    return parser


def _parse(words: list[str]) -> tuple[ModuleType, argparse.Namespace]:
    wanted = next((word for word in words if not word.startswith("-")), "")
    if wanted == "help":
        words = [*[word for word in words if word != "help"][:1], "--help"]
        wanted = words[0]
    if wanted and not wanted.startswith("-") and wanted not in COMMANDS:
        raise UsageError(
            f"there is no command {wanted}", hint=near(wanted, COMMANDS) or "torpor --help lists what there is"
        )
    parser = parser_for((wanted,))
    parser.chosen = wanted
    args = parser.parse_args(words)
    return import_module(f"torpor.cli.commands.{args.subcommand}"), args


def command() -> NoReturn:
    """The ``torpor`` command as a process of its own.

    It ends at once: while the interpreter takes itself apart a signal would be the end, and the exit code it, of what
    has been done and cannot be taken back.
    """
    utf8.insist()
    open_standard()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or 141
        except (OSError, ValueError):
            code = code or 120  # as Python has it
    os._exit(code)


if __name__ == "__main__":
    command()
