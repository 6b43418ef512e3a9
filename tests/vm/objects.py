"""Which tests of kernel objects run in machines, and what came of them: one line an object and kernel.

`docs/kernels.tsv` keeps those of the last runs, by kernel; tools/gen_kernels.py makes the table of
docs/support-matrix.md of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from vm.payload import REPOSITORY

RESULTS = REPOSITORY / "docs/kernels.tsv"
#: With what each workload goes through there: a kernel's fault shows in the first.
FLAVOURS = ("control", "host")
PASSED, MISSING, FAILED = "passed", "missing", "failed"

#: Why a test of an object fails on a kernel, where it is not torpor that is wrong.
EXPLAINED: dict[tuple[str, str], str] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of all tests of one object on one kernel: the worst that came, and why."""

    kernel: str
    release: str
    name: str
    result: str
    reason: str


def chosen() -> list[str]:
    """The files of tests that take workloads through the flavours, from the repository's root."""
    folder = REPOSITORY / "tests/objects"
    files = [path for path in sorted(folder.glob("test_*.py")) if "workload_test(" in path.read_text()]
    return [str(path.relative_to(REPOSITORY)) for path in files]


def outcomes(kernel: str, release: str, junit: Path) -> list[Outcome]:
    """What pytest's report says, an object a line."""
    found: dict[str, list[tuple[str, str]]] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
        found.setdefault(name, []).append(_of_case(case))
    return [Outcome(kernel, release, name, *_worst(results)) for name, results in sorted(found.items())]


def _of_case(case: ElementTree.Element) -> tuple[str, str]:
    for tag, result in (("failure", FAILED), ("error", FAILED), ("skipped", MISSING)):
        if (node := case.find(tag)) is not None:
            return result, _reason(f"{node.get('message') or ''}\n{node.text or ''}")
    return PASSED, ""


def _reason(text: str) -> str:
    """What was missing; or the engine's own last error, which is what a user would see."""
    if told := re.search(r"missing: (.*)", text):
        return told[1].strip()
    errors = re.findall(r"\(\d+\.\d+\) Error \([^)]*\): (.*)", text)
    return (errors[-1] if errors else text.strip().splitlines()[0] if text.strip() else "")[:200]


def _worst(results: Iterable[tuple[str, str]]) -> tuple[str, str]:
    order = (FAILED, MISSING, PASSED)
    return min(results, key=lambda each: order.index(each[0]))


def read() -> list[Outcome]:
    """What is kept."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [Outcome(*line.split("\t")) for line in lines]


def keep(kernel: str, new: Iterable[Outcome]) -> None:
    """Have these stand for what was kept of the kernel."""
    rows = [each for each in read() if each.kernel != kernel] + list(new)
    rows.sort(key=lambda each: (each.name, [int(part) if part.isdigit() else 99 for part in each.kernel.split(".")]))
    lines = ["\t".join((row.kernel, row.release, row.name, row.result, row.reason)) for row in rows]
    RESULTS.write_text("\n".join(lines) + "\n")
