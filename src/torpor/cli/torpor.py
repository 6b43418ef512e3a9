"""Entry of the ``torpor`` command, for people: a subcommand is a module of :mod:`torpor.cli.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from torpor import __version__
from torpor.base import log
from torpor.base.errors import TorporError
from torpor.kernel import interrupts

#: Subcommand and what it is for, in the order of the help.
COMMANDS = {
    "run": "start a command as a job, in namespaces of its own",
    "ps": "list the jobs",
    "logs": "show what a job wrote",
    "kill": "end a job",
    "checkpoint": "put a process or job to sleep in files",
    "restore": "wake it again",
    "checkpoints": "list the checkpoints of jobs",
    "tag": "give a checkpoint of a job a name",
    "rm": "remove checkpoints of a job",
    "prune": "remove all but the newest checkpoints",
    "inspect": "show what a checkpoint holds",
    "check": "what this machine can do, or what stops a process from being checkpointed",
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
    except TorporError as error:
        sys.stderr.write(f"torpor: {error.describe()}\n")
        return error.exit_code
    except (interrupts.Interrupted, KeyboardInterrupt) as stop:
        sys.stderr.write("torpor: interrupted; nothing was left half done\n")
        return 128 + (stop.number if isinstance(stop, interrupts.Interrupted) else 2)
    except BrokenPipeError:
        return 141
    except OSError as error:
        sys.stderr.write(f"torpor: {error}\n")
        return 1
    except Exception as error:
        if "-v" in words or "--verbose" in words:
            raise
        sys.stderr.write(f"torpor: bug: {type(error).__name__}: {error} (-v shows where)\n")
        return 1


def _parse(words: list[str]) -> tuple[ModuleType, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="torpor", description="Put running processes to sleep in files, and wake them again.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"torpor {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    wanted = next((word for word in words if not word.startswith("-")), "")
    for name, purpose in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=purpose, allow_abbrev=False)
        if name == wanted:
            import_module(f"torpor.cli.commands.{name}").add_arguments(subparser)
    args = parser.parse_args(words)
    return import_module(f"torpor.cli.commands.{args.subcommand}"), args


if __name__ == "__main__":
    sys.exit(main())
