"""Pages that are made of the sources are what the sources say, and every file of an object says what it is."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: What makes pages; with --check it only compares.
TOOLS = ("gen_docs.py", "gen_options.py", "gen_kernels.py")
#: The parts of a docstring that a kind of kernel object has.
PARTS = ("Kernel view", "Image", "Restore", "Limits")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_made_is_up_to_date(tool: str, repository: Path) -> None:
    line = [sys.executable, str(repository / "tools" / tool), "--check"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python tools/{tool} makes it anew: {done.stdout}{done.stderr}"


def test_each_kind_of_file_is_in_the_page_of_objects(repository: Path) -> None:
    page = (repository / "docs/internals/objects.md").read_text()
    for name in ("eventfd", "timerfd", "pipe", "epoll", "inotify", "memfd", "tty", "pidfd"):
        part = page.partition(f"/objects/files/{name}.py)")[2].partition("\n### ")[0]
        assert all(f"**{each}.**" in part for each in PARTS), name


def test_a_file_that_has_one_of_the_parts_has_all(repository: Path) -> None:
    """What is not there is said as well: nothing in the images, nothing to be made, no limits known."""
    lacking = []
    for path in sorted((repository / "src/torpor/objects").rglob("*.py")):
        lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
        there = [part for part in PARTS if part in lines]
        if there and there != list(PARTS):
            lacking.append(f"{path.name}: {', '.join(set(PARTS) - set(there))}")
        # In this order.
        assert sorted(there, key=lines.index) == there, path.name
    assert not lacking, "\n".join(lacking)


def test_each_field_of_ours_is_in_the_page_of_images(repository: Path) -> None:
    schema = (repository / "src/torpor/images/schema/torpor.txt").read_text()
    page = (repository / "docs/internals/images.md").read_text()
    fields = {line.split()[3] for line in schema.splitlines() if line.startswith(("    1000", "    1001"))}
    assert len(fields) > 50
    assert not [field for field in fields if f"`{field}`" not in page]


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    lost = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not lost, "\n".join(lost)
