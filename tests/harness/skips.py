"""Skips that say exactly what is missing, and that CI does not let pass."""

import os
from typing import NoReturn

import pytest

#: What CI's machine cannot have, so that even there its lack is only a skip. Each line says why.
EXPECTED_IN_CI: frozenset[str] = frozenset()


def in_ci() -> bool:
    """Whether an unexpected skip is to be a failure (`TORPOR_CI=1`)."""
    return os.environ.get("TORPOR_CI", "") not in ("", "0")


def missing(what: str) -> NoReturn:
    """Skip the test because of what is missing here; in CI, fail instead unless EXPECTED_IN_CI names it.

    `what` completes the sentence "missing: ...", as exactly as possible: "the command nginx (Debian: nginx-light)".
    """
    if in_ci() and what not in EXPECTED_IN_CI:
        pytest.fail(f"missing: {what} (and TORPOR_CI does not allow this skip)", pytrace=False)
    pytest.skip(f"missing: {what}")


def is_allowed(skip_reason: str) -> bool:
    """Whether a skip with this reason is one that `missing` let pass."""
    return any(f"missing: {what}" in skip_reason for what in EXPECTED_IN_CI)
