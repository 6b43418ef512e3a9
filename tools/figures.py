#!/usr/bin/env python3
"""Figures of the sources of a work tree: how many modules, how long, how they hang together, what unit tests reach.

usage: figures.py [TREE] [COVERAGE.json]      COVERAGE.json: of `coverage run -m pytest tests/unit; coverage json`
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

LAYERS = ("base", "kernel", "images", "tracee", "objects", "engine", "migrate", "rpc", "containers", "cli")
GENERATED = ("_descriptors.py",)
_STORES = re.compile(r"\bDirStore\(")


def imported(tree: ast.AST) -> set[str]:
    """The modules of ours that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found


def of_sources(tree: Path) -> None:
    """Print what the sources alone tell."""
    root = tree / "src/torpor"
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.py"))}
    lengths = {name: len(text.splitlines()) for name, text in texts.items() if not name.endswith(GENERATED)}
    longest = max(lengths, key=lambda name: lengths[name])
    print(f"modules               {len(lengths)}, median {statistics.median(lengths.values()):.0f} lines")
    print(
        f"longest               {longest}, {lengths[longest]} lines; {sum(n > 400 for n in lengths.values())} over 400"
    )
    uses = {name: imported(ast.parse(text)) for name, text in texts.items()}
    for module in ("objects/files/model", "objects/session"):
        if f"{module}.py" in texts:
            n = sum(f"torpor.{module.replace('/', '.')}" in each for each in uses.values())
            print(f"importers             {n} of {module}")
    n_loads = sum(text.count('load("torpor.') for text in texts.values())
    print(f'untyped load("...")   {n_loads}')
    makers = [name for name, text in texts.items() if _STORES.search(text) and not name.startswith("images/stores/")]
    print(f"make a DirStore       {len(makers)} modules outside of images/stores")
    machine = tree / "tests/project/test_arch.py"
    if machine.exists():
        space: dict[str, object] = {}
        exec(compile(machine.read_text(), str(machine), "exec"), space)
        foreign = space["foreign_words"]
        n = sum(1 for name, text in texts.items() for _ in foreign(name, text))  # type: ignore[operator]
        print(f"words of one machine  {n} outside of arch")


def of_coverage(path: Path) -> None:
    """Print which part of each layer's lines the unit tests have run."""
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, told in json.loads(path.read_text())["files"].items():
        layer = name.partition("src/torpor/")[2].partition("/")[0]
        if layer in LAYERS:
            lines[layer][0] += told["summary"]["covered_lines"]
            lines[layer][1] += told["summary"]["num_statements"]
    for layer in LAYERS:
        if lines[layer][1]:
            covered, there = lines[layer]
            print(f"unit tests run        {100 * covered / there:3.0f} % of {layer} ({covered} of {there} lines)")


def main(words: list[str]) -> int:
    """Print all that can be told."""
    of_sources(Path(words[0]) if words else Path(__file__).resolve().parent.parent)
    if len(words) > 1:
        of_coverage(Path(words[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
