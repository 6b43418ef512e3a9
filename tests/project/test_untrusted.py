"""docs/internals/untrusted-images.md has a line for every field of every message, and for none that there is not."""

import re
from pathlib import Path

_OTHER_ARCHITECTURES = re.compile(r"aarch64|_arm|arm_|loongarch|mips|ppc64|riscv|s390|^pac_")
_FIELD = re.compile(r" {4}\d+ (?:optional|required|repeated) \S+ (\w+)")


def _in_schema(directory: Path) -> "set[tuple[str, str]]":
    found = set()
    for path in sorted(directory.glob("*.txt")):
        message = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("message ", "extend ", "enum ")):
                kind, message = line.split()[:2]
                message = "" if kind == "enum" or _OTHER_ARCHITECTURES.search(message) else message
            elif message and (field := _FIELD.match(line)):
                found.add((message, field[1]))
    return found


def _in_table(path: Path) -> "list[tuple[str, str]]":
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return [(row[0], field.strip()) for row in rows if len(row) >= 3 for field in row[1].split(",")]


def test_every_field_has_its_line(repository: Path) -> None:
    schema = _in_schema(repository / "src/torpor/images/schema")
    assert len(schema) > 900
    table = [
        (message, field)
        for message, field in _in_table(repository / "docs/internals/untrusted-images.md")
        if re.fullmatch(r"\w+", message) and any(message == known for known, _ in schema)
    ]
    missing = schema - set(table)
    assert not missing, f"docs/internals/untrusted-images.md says nothing of {sorted(missing)}"
    unknown = set(table) - schema
    assert not unknown, f"docs/internals/untrusted-images.md tells of what is not there: {sorted(unknown)}"
    twice = sorted({each for each in table if table.count(each) > 1})
    assert not twice, f"docs/internals/untrusted-images.md says twice what limits {twice}"


def test_where_a_field_is_used_is_a_place(repository: Path) -> None:
    source = repository / "src/torpor"
    for line in (repository / "docs/internals/untrusted-images.md").read_text(encoding="utf-8").splitlines():
        for word in re.findall(r"[a-z_/]+\.py|objects/[a-z]+/", line) if line[:2] == "| " else ():
            places = [word, f"objects/{word}"]
            known = any((source / place).exists() for place in places) or any(source.rglob(word.rpartition("/")[2]))
            assert known, f"there is no {word}: {line}"
