"""What somebody who mistyped a word probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def near(word: str, known: Iterable[str]) -> str:
    """``did you mean A or B?``, of the *known* words that are like *word*; nothing if there are none."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=2, cutoff=0.7)
    return f"did you mean {' or '.join(found)}?" if found else ""
