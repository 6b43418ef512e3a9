#!/usr/bin/env python3
"""Makes docs/internals/objects.md from the objects' docstrings, and images.md's list of our fields from the schema.

usage: gen_docs.py [--check]      --check: writes nothing, exit code 1 where a committed file differs
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "src/torpor/objects"
PAGE = ROOT / "docs/internals/objects.md"
IMAGES = ROOT / "docs/internals/images.md"
SCHEMA = ROOT / "src/torpor/images/schema/torpor.txt"
BEGIN = "<!-- made by tools/gen_docs.py from src/torpor/images/schema/torpor.txt: change that, not this -->"
END = "<!-- end of what is made -->"
PARTS = ("Kernel view", "Image", "Restore", "Limits")
_HEAD = """\
# Kernel objects

What torpor knows of each kind of kernel object: how the kernel shows it, what of it goes into the images, how it comes
back, and what is not carried. Made by `tools/gen_docs.py` from the docstrings at the top of the files in
`src/torpor/objects/`: change those, not this.
"""


def parts_of(text: str) -> tuple[str, dict[str, list[str]]]:
    """The title of a docstring, and the lines of each of its parts."""
    title, _, body = text.partition("\n")
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in body.splitlines():
        if line.strip() in PARTS and not line.startswith(" "):
            current = found.setdefault(line.strip(), [])
        elif line and not line.startswith(" "):
            current = None
        elif current is not None and (line.strip() or current):
            current.append(line)
    return title, {name: _trimmed(lines) for name, lines in found.items()}


def _trimmed(lines: list[str]) -> list[str]:
    return inspect.cleandoc("\n".join(lines)).splitlines()


def modules() -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """Path below objects/, title and parts of each module that has them."""
    for path in sorted(OBJECTS.rglob("*.py"), key=lambda path: (path.parent.as_posix(), path.name)):
        title, parts = parts_of(ast.get_docstring(ast.parse(path.read_text())) or "")
        if len(parts) > 1:
            yield path.relative_to(OBJECTS).as_posix(), title.rstrip("."), parts


def made() -> str:
    """The page."""
    lines, folder = [_HEAD], ""
    for name, title, parts in modules():
        here = name.rpartition("/")[0] or "."
        if here != folder:
            folder = here
            lines += [f"## {folder}/", ""]
        lines += [f"### {title}", "", f"[`objects/{name}`](../../src/torpor/objects/{name})", ""]
        for part in PARTS:
            if part in parts:
                lines += [f"**{part}.**", *(line.replace("``", "`") for line in parts[part]), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def fields() -> Iterator[tuple[str, str, list[str], str]]:
    """Of each block of our schema: what it is (``extend``, ``message``), its name, its fields, what is said of it."""
    for block in SCHEMA.read_text().split("\n\n")[1:]:
        lines = block.strip().splitlines()
        said = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
        for line in lines:
            word, _, name = line.partition(" ")
            if word in ("extend", "message", "enum"):
                mine = lines[lines.index(line) + 1 :]
                end = next((at for at, other in enumerate(mine) if not other.startswith(("    ", "#"))), len(mine))
                names = [other.split()[3] for other in mine[:end] if other.startswith("    ")]
                yield word, name.strip(), names, said


def made_of_images(text: str) -> str:
    """*text* with our fields in their place."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = ["| message | fields of ours | what is said of them |", "|---|---|---|"]
    for word, name, names, said in fields():
        shown = f"`{name}`" if word == "extend" else f"`{name}` (ours)"
        lines.append(f"| {shown} | {', '.join(f'`{each}`' for each in names)} | {said.replace('|', chr(92) + '|')} |")
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def main(words: list[str]) -> int:
    """Write, or compare."""
    wanted = {PAGE: made(), IMAGES: made_of_images(IMAGES.read_text())}
    if words == ["--check"]:
        differing = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        print(*differing)
        return 1 if differing else 0
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
