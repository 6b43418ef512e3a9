#!/usr/bin/env python3
"""Makes the table of objects by kernel in docs/support-matrix.md from docs/kernels.tsv, which `make test-vm` writes.

usage: gen_kernels.py [--check]      --check: writes nothing, exit code 1 where the committed page differs
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "tests"))

from vm.objects import EXPLAINED, FAILED, MISSING, PASSED, Outcome, order, read  # noqa: E402

PAGE = ROOT / "docs/support-matrix.md"
BEGIN = "<!-- made by tools/gen_kernels.py from docs/kernels.tsv, which make test-vm writes: change neither by hand -->"
END = "<!-- end of what tools/gen_kernels.py makes -->"


def page(text: str) -> str:
    """*text* with the part that is made in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{PAGE.name}: the lines that enclose what is made are missing")
    return f"{before}{BEGIN}\n\n{made(read())}\n{END}{after}"


def made(found: list[Outcome]) -> str:
    """The table, and the reasons below it."""
    if not found:
        return "No run is kept yet."
    kernels = sorted({each.kernel for each in found}, key=order)
    releases = {each.kernel: f"{each.release} {each.kernel.partition(' ')[2]}".strip() for each in found}
    lines = [
        "| object | " + " | ".join(releases[kernel] for kernel in kernels) + " |",
        "|---" * (len(kernels) + 1) + "|",
    ]
    cells = {(each.name, each.kernel): each for each in found}
    notes: list[str] = []
    for name in sorted({each.name for each in found}):
        row = [_cell(cells.get((name, kernel)), notes) for kernel in kernels]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    counts = [_count(found, kernel) for kernel in kernels]
    lines.append("| **passed / missing / failed** | " + " | ".join(counts) + " |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


def _count(found: list[Outcome], kernel: str) -> str:
    results = [each.result for each in found if each.kernel == kernel]
    return " / ".join(str(results.count(result)) for result in (PASSED, MISSING, FAILED))


def _cell(outcome: Outcome | None, notes: list[str]) -> str:
    if outcome is None:
        return ""
    if outcome.result == PASSED:
        return PASSED
    note = EXPLAINED.get((outcome.kernel, outcome.name), outcome.reason).replace("|", "\\|").replace("<", "\\<")
    if note not in notes:
        notes.append(note)
    return f"{outcome.result} ({notes.index(note) + 1})"


def main() -> int:
    """Write, or compare."""
    old = PAGE.read_text()
    new = page(old)
    if "--check" in sys.argv[1:]:
        return int(old != new)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
