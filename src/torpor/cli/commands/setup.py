"""``torpor setup``: put torpor's criu command where container runtimes find it, and torpor on root's path."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.containers.survey import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor setup``."""
    parser.description = (
        "Put a criu command that runs torpor where container runtimes look first, torpor beside it, manual pages and "
        "completions into share, and say what was found of each engine. A criu of the distribution stays where it is. "
        "Another's file is never overwritten."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--undo", action="store_true", help="take it away again")
    what.add_argument("--status", "--check", action="store_true", help="change nothing; 1 if an engine runs no torpor")
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, help="where to, if the runtimes' PATH begins elsewhere"
    )
    parser.add_argument(
        "--survive-reboot", action="store_true",
        help="also have systemd save at shutdown what torpor survive marks, and restore it at boot; --undo: only that",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=int, metavar="SEC", help="with --survive-reboot: how long all that may take (default 300)"
    )
    parser.add_argument("--json", action="store_true", help="what was found, as JSON")


def main(args: argparse.Namespace) -> int:
    """Do it, and say what was found."""
    from torpor.cli.telling import tell
    from torpor.containers import installation

    directory = args.directory or installation.DIRECTORY
    if args.undo and args.survive_reboot:
        return _no_reboots()
    if args.undo:
        if directory == installation.DIRECTORY:
            _no_reboots(if_any=True)
        gone = installation.remove(directory, _texts())
        tell(f"{gone} is gone" if gone else f"there was none in {directory}: nothing to undo")
        return 0
    if not args.status:
        made, changed = installation.install(directory, _texts())
        if not args.json:
            names = f"{made.path} and {made.path.parent / 'torpor'}"
            tell(f"{names} run torpor {made.version}{'' if changed else ', as before'}")
        if args.survive_reboot:
            _reboots(args, made.path.parent / "torpor")
    all_run_it = _show(directory, args.json, print if args.status else tell)
    return 0 if all_run_it or not args.status else 1


def _reboots(args: argparse.Namespace, command: Path) -> None:
    from torpor.cli.telling import tell
    from torpor.containers.reboot import units

    changed = units.install(command, args.timeout or units.TIMEOUT_S)
    if not args.json:
        tell(f"{units.SAVE} and {units.RESTORE} are on{'' if changed else ', as before'}: torpor survive NAME marks")


def _no_reboots(*, if_any: bool = False) -> int:
    from torpor.cli.telling import tell
    from torpor.containers.reboot import units

    gone = units.remove()
    if gone:
        tell(f"{units.SAVE} and {units.RESTORE} are gone; what sleeps is woken by torpor survive --restore")
    elif not if_any:
        tell("there were no units: nothing to undo")
    return 0


def _texts() -> dict[str, str]:
    """Manual pages and completions, by their places below ``share``."""
    from torpor.cli import completion, manual

    return {**completion.files(), **{f"man/{place}": text for place, text in manual.pages().items()}}


def _show(directory: Path, as_json: bool, say: Callable[[str], None]) -> bool:
    """Say what was found; whether every engine runs torpor."""
    from torpor.containers import installation
    from torpor.containers.survey import config_files, survey

    found = survey()
    ours = installation.find(directory)
    if as_json:
        import dataclasses
        import json

        told = {
            "installed": {**dataclasses.asdict(ours), "path": str(ours.path)} if ours else None,
            "engines": [dataclasses.asdict(report) for report in found],
            "config_files": [dataclasses.asdict(file) for file in config_files()],
            "missing_features": [name for name, _ in _missing_features()],
        }
        say(json.dumps(told, indent=1))
    else:
        say("\n".join(_lines(found, directory)))
    return all(report.criu is not None and report.criu.is_torpor for report in found)


def _lines(found: list[Report], directory: Path) -> Iterator[str]:
    from torpor.cli.progress import time_of
    from torpor.containers import installation
    from torpor.containers.commands import SERVICE_PATH
    from torpor.containers.survey import config_files

    ours = installation.find(directory)
    if ours is None:
        yield f"torpor's criu is not in {directory}: `torpor setup` puts it there"
    elif not ours.is_current:
        yield f"{ours.path} is of torpor {ours.version}, or of another installation: `torpor setup` renews it"
    elif installation.lacks_compiled_files():
        yield f"{ours.path}: not all modules are compiled, so it starts slowly: `torpor setup`, as root, compiles them"
    if str(directory) not in SERVICE_PATH.split(":"):
        yield f"{directory} is not where services look ({SERVICE_PATH}): put it on the PATH of each engine"
    for report in found:
        yield ""
        yield f"{report.engine} {report.version}"
        yield from (f"  {line}" for line in report.details)
        if report.criu is not None:
            yield f"  runs {report.criu.path} ({report.criu.version}; starts in {time_of(report.criu.start_s)})"
        for problem in report.problems:
            yield f"  NOT WORKING: {problem.text}"
            yield f"    what to do: {problem.remedy}"
    if not found:
        yield "no container engine is installed"
    yield ""
    for file in config_files():
        yield f"options in {file.path}: {', '.join(file.options) or 'none'}"
    lacking = list(_missing_features())
    yield from (f"this kernel has no {name}, needed for {purpose}" for name, purpose in lacking)
    if not lacking:
        yield "this kernel has all features that torpor knows to use"


def _missing_features() -> Iterator[tuple[str, str]]:
    from torpor.cli.commands.check import PURPOSES
    from torpor.kernel.features import probe

    return ((name, purpose) for name, _, purpose in PURPOSES if not probe(name))
