"""How often a test of chance repeats: a few times in CI, as often as an issue asks for by hand."""

import os
from collections import Counter
from collections.abc import Iterator


def rounds(in_ci: int, in_full: int) -> int:
    """`in_full` with `TORPOR_FULL=1`, else `in_ci`."""
    return in_full if os.environ.get("TORPOR_FULL", "") not in ("", "0") else in_ci


def iter_rounds(n: int, met: Counter[str], *wanted: str) -> Iterator[int]:
    """So many rounds, or up to ten times as many: until chance has brought all that is *wanted*, by *met*."""
    for number in range(10 * n):
        if number >= n and all(met[each] for each in wanted):
            return
        yield number
