"""The last lines of a run: by kernel, how many tests passed, and how many of the objects that they have looked at."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from vm.kernels import KERNELS
from vm.objects import COUNTED, order

_OUTCOMES = {"passed": "passed", "skipped": "skipped", "failed": "failed", "error": "failed"}
_SEVERAL = "several kernels"


def lines(stats: Mapping[str, Iterable[object]]) -> list[str]:
    """Of what pytest's terminal reporter has counted."""
    counts: dict[str, Counter[str]] = {}
    for key, outcome in _OUTCOMES.items():
        for report in stats.get(key, ()):
            if isinstance(report, pytest.TestReport) and "/test_in_" in report.nodeid:
                found = counts.setdefault(_kernel_of(report.nodeid), Counter())
                found[f"tests {outcome}"] += 1
                for name, value in report.user_properties:
                    if name == COUNTED and isinstance(value, dict):
                        found.update(value)
    return [
        f"{kernel}: {', '.join(f'{number} {what}' for what, number in counts[kernel].items())}"
        for kernel in sorted(counts, key=order)
    ]


def _kernel_of(nodeid: str) -> str:
    """The first of its parameters, where that is a kernel."""
    found = re.search(r"\[([^]-]+)", nodeid)
    return found[1] if found and found[1] in {kernel.name for kernel in KERNELS} else _SEVERAL
