"""``--cpu-cap``: what a restore asks of the processor, in words that all machines share."""

from __future__ import annotations

#: What it asks unless told otherwise.
DEFAULT = "ins,fpu"


def caps_of(wanted: str) -> set[str]:
    """The words of ``--cpu-cap``."""
    caps: set[str] = set()
    for word in wanted.split(","):
        name = word.removeprefix("^")
        named = {"ins", "fpu", "cpu"} if name == "all" else set() if name in ("none", "") else {name}
        caps = caps - named if word.startswith("^") else set() if name == "none" else caps | named
    return caps
