#!/usr/bin/env python3
"""Makes the part on options of docs/support-matrix.md from the table of options.

usage: gen_options.py [--check]      --check: writes nothing, exit code 1 where the committed file differs
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from torpor.engine.option_table import (  # noqa: E402
    CHECK,
    CHECKPOINT,
    FLAG,
    HARMLESS,
    MAYBE,
    OPTIONS,
    RESTORE,
    SWITCH,
    USED,
    VALUE,
    Option,
)

PAGE = ROOT / "docs/support-matrix.md"
BEGIN = "<!-- made by tools/gen_options.py from src/torpor/engine/option_table.py: change that, not this -->"
END = "<!-- end of what is made -->"
_FUNCTIONS = {CHECK: "examine", CHECKPOINT: "dump", RESTORE: "restore"}


def page(text: str) -> str:
    """*text* with the part that is made in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{PAGE.name}: the lines that enclose what is made are missing")
    return f"{before}{BEGIN}\n\n{made()}\n{END}{after}"


def made() -> str:
    """Everything between them."""
    lines: list[str] = []
    kinds: tuple[tuple[str, Callable[[Option], bool]], ...] = (
        ("Work", lambda option: option.support == USED),
        ("Accepted; there is nothing for them to change here", lambda option: option.support == HARMLESS),
    )
    for title, belongs in kinds:
        lines += [f"### {title}", "", "| option | what for | without it | by RPC |", "|---|---|---|---|"]
        lines += [_of_criu(option) for option in OPTIONS if option.takes and belongs(option)]
        lines.append("")
    lines += ["### torpor and Python", ""]
    lines += ["What is not said here is as for criu(8). Arguments and options have the same defaults.", ""]
    lines += ["| `torpor` | argument in Python | default | where it differs from criu's |", "|---|---|---|---|"]
    lines += list(_of_people())
    return "\n".join(lines) + "\n"


def _of_criu(option: Option) -> str:
    names = [f"`-{option.short}`"] if option.short else []
    value = {VALUE: " VALUE", MAYBE: "[=VALUE]"}.get(option.takes, "")
    names.append(f"`--{option.name}{value}`")
    text = option.text
    if option.note:
        text += f". *{option.note}*"
    fields = " ".join(f"`{field}`" for field in option.rpc.split())
    return f"| {' '.join(names)} | {_cell(text)} | {_default(option)} | {fields} |"


def _default(option: Option) -> str:
    if option.takes in (FLAG, SWITCH):
        return "on" if option.default else ""
    if option.default in ("", (), None, -1, 0):
        return ""
    return f"`{option.default:o}`" if option.name == "socket-mode" else f"`{option.default}`"


def _of_people() -> Iterator[str]:
    for option in OPTIONS:
        people = option.people
        if people is None:
            continue
        name = people.name or option.name
        value = f" {people.value}" if people.value else ""
        shown = f"`--{name}{value}`" if people.at and not people.only_python else ""
        where = ", ".join(f"`{_FUNCTIONS[command]}`" for command in people.at)
        argument = f"`{option.keyword}` of {where}" if where else f"(none: {option.name})"
        crius = _plain(option.as_set(option.default))
        reason = f"criu: {crius}; {people.why}" if people.why and crius else people.why
        yield f"| {shown} | {argument} | {_plain(option.peoples_default)} | {_cell(reason)} |"


def _plain(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20:
        return f"{value >> 20} MiB"
    words = {"True": "yes", "False": "no", "None": "none"}
    return words.get(str(value), f"`{value}`") if value not in ("", ()) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(words: list[str]) -> int:
    """Write, or compare."""
    there = PAGE.read_text()
    wanted = page(there)
    if words == ["--check"]:
        return 0 if there == wanted else 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
