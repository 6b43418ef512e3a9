"""``criu --help``: made of the table of options, so that it cannot disagree with it."""

from __future__ import annotations

import textwrap

from torpor.cli.criu.descriptions import COMMANDS
from torpor.cli.criu.options import HARMLESS, MAYBE, OPTIONS, SWITCH, USED, VALUE, Option

_HEAD = """\
Usage:
  criu COMMAND [options]

This is torpor's criu command: CRIU's words and images, another engine.
"""
_WIDTH, _INDENT = 79, 30


def text() -> str:
    """The text of ``criu --help``: the commands, the options that are used, those that change nothing here."""
    groups = (
        ("Options:", [option for option in OPTIONS if option.support == USED]),
        ("Accepted, but there is nothing for them to change here:", [o for o in OPTIONS if o.support == HARMLESS]),
    )
    lines = [_HEAD, "Commands:"]
    for name, what in COMMANDS.items():
        lines += _described(f"  {name}", what)
    lines.append("")
    for title, options in groups:
        lines.append(title)
        for option in options:
            lines += _described(f"  {words_of(option)}", option.text)
        lines.append("")
    return "\n".join(lines)


def words_of(option: Option) -> str:
    """How it is written: ``-t, --tree VALUE``."""
    short = f"-{option.short}, " if option.short else "    "
    form = {VALUE: " VALUE", MAYBE: "[=VALUE]"}.get(option.takes, "")
    negated = f" / --no-{option.name}" if option.takes == SWITCH else ""
    return f"{short}--{option.name}{form}{negated}"


def _described(words: str, what: str) -> list[str]:
    """The words, and beside or below them what they mean."""
    lines = textwrap.wrap(what, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
    if len(words) < _INDENT - 1:
        return [words.ljust(_INDENT) + lines[0], *(" " * _INDENT + line for line in lines[1:])]
    return [words, *(" " * _INDENT + line for line in lines)]
