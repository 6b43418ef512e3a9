"""The two commands as words: what there is to type, read off the tables that parse it.

Manual pages (:mod:`torpor.cli.manual`) and completions (:mod:`torpor.cli.completion`) are made of this, and so cannot
disagree with what the commands take.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

#: What completes the names that a command takes: a command that lists them, or files.
_NAMES = {
    "logs": "torpor ps -aq", "kill": "torpor ps -aq", "checkpoint": "torpor ps -q", "check": "torpor ps -q",
    "restore": "torpor checkpoints -q", "inspect": "torpor checkpoints -q", "tag": "torpor checkpoints -q",
    "rm": "torpor checkpoints -q", "checkpoints": "torpor ps -aq", "prune": "torpor ps -aq",
    "verify": "torpor checkpoints -q", "migrate": "torpor ps -q",
    "survive": "torpor ps -q",
}  # fmt: skip
_WITH_FILES = frozenset({"restore", "inspect", "verify"})


@dataclass(frozen=True, slots=True)
class Option:
    """``names`` with their dashes; ``value``: what it takes, "" for nothing; ``group``: where the help lists it."""

    names: tuple[str, ...]
    text: str
    value: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""

    @property
    def long(self) -> str:
        """The longest of its names, dashes included."""
        return max(self.names, key=len)


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand.  ``usage``: its arguments; ``lister``: a command line that prints names for them."""

    name: str
    purpose: str
    text: str = ""
    usage: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    options: tuple[Option, ...] = ()
    lister: str = ""
    takes_files: bool = False


def commands_of_torpor() -> list[Command]:
    """All of them, in the order of the help."""
    from torpor.cli.torpor import COMMANDS, parser_for

    parser = parser_for(COMMANDS)
    chosen = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [_command(name, purpose, chosen.choices[name]) for name, purpose in COMMANDS.items()]


def _command(name: str, purpose: str, parser: argparse.ArgumentParser) -> Command:
    positional = [action for action in parser._actions if not action.option_strings]
    formatter = argparse.HelpFormatter(parser.prog, width=10_000)
    formatter.add_usage(None, positional, (), prefix="")
    usage = formatter.format_help().strip().removeprefix(f"torpor {name}").strip()
    if name == "run":
        usage = "[--] CMD..."
    return Command(
        name, purpose, parser.description or "", f"[options] {usage}".strip(),
        tuple((_shown(action), action.help or "") for action in positional), tuple(_options(parser)),
        _NAMES.get(name, ""), name in _WITH_FILES,
    )  # fmt: skip


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for group in parser._action_groups:
        title = group.title if group.title not in ("options", "positional arguments") else ""
        for action in group._group_actions:
            if action.option_strings:
                choices = tuple(map(str, action.choices or ()))
                value = "" if action.nargs == 0 else _shown(action)
                yield Option(tuple(action.option_strings), action.help or "", value, choices, title or "")


def _shown(action: argparse.Action) -> str:
    if action.metavar is not None:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def options_of_criu() -> list[Option]:
    """All of them, with their ``--no-`` forms."""
    from torpor.cli.criu.options import MAYBE, OPTIONS, SWITCH, VALUE

    found = []
    for option in OPTIONS:
        names = (f"-{option.short}",) if option.short else ()
        value = {VALUE: "VALUE", MAYBE: "[VALUE]"}.get(option.takes, "")
        found.append(Option((*names, f"--{option.name}"), option.text, value, group=option.support))
        if option.takes == SWITCH:
            found.append(Option((f"--no-{option.name}",), f"not --{option.name}", group=option.support))
    return found


def commands_of_criu() -> list[Command]:
    """All of them; each takes any option."""
    from torpor.cli.criu.descriptions import COMMANDS

    return [Command(name, purpose) for name, purpose in COMMANDS.items()]
