"""Skips that say exactly what is missing, and that CI does not let pass."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from torpor.kernel.userfaultfd import can_track

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


def need_mounted_root() -> None:
    """Skip the test in a chroot, where nobody may make a user namespace, or change the root's propagation."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    if not any(line.split()[4] == "/" for line in lines):
        missing("a root directory that is a mount point (this is a chroot)")


def need_tracking() -> None:
    """Skip the test where the kernel does not tell what has been written to memory."""
    if not can_track():
        missing("a kernel that tells what is written (userfaultfd, Linux 6.7)")


def is_allowed(skip_reason: str) -> bool:
    """Whether a skip with this reason is one that `missing` let pass."""
    return any(f"missing: {what}" in skip_reason for what in EXPECTED_IN_CI)
