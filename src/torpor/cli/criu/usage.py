"""``criu --help``: made of the table of options, so that it cannot disagree with it."""

from __future__ import annotations

from torpor.cli.criu.options import HARMLESS, MAYBE, OPTIONS, SWITCH, USED, VALUE, Option

_HEAD = """\
Usage:
  criu dump -t PID [options]       put a process and everything below it into image files
  criu restore [options]           rebuild what the image files hold
  criu check [--feature NAME]      whether the kernel has what is needed

This is torpor's criu command: CRIU's words and images, another engine.
"""


def text() -> str:
    """The whole help."""
    groups = (
        ("Options:", [option for option in OPTIONS if option.support == USED]),
        ("Accepted, but there is nothing for them to change here:", [o for o in OPTIONS if o.support == HARMLESS]),
        ("Known, but not done yet (refused when used):", [o for o in OPTIONS if o.support not in (USED, HARMLESS)]),
    )
    lines = [_HEAD]
    for title, options in groups:
        lines += [title, *(_line(option) for option in options), ""]
    return "\n".join(lines)


def _line(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    form = {VALUE: " VALUE", MAYBE: "[=VALUE]"}.get(option.takes, "")
    negated = f" / --no-{option.name}" if option.takes == SWITCH else ""
    return f"  {short}--{option.name}{form}{negated}"
