"""How often a test of chance repeats: a few times in CI, as often as an issue asks for by hand."""

import os


def rounds(in_ci: int, in_full: int) -> int:
    """`in_full` with `TORPOR_FULL=1`, else `in_ci`."""
    return in_full if os.environ.get("TORPOR_FULL", "") not in ("", "0") else in_ci
