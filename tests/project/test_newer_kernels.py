"""What the kernel has got since 5.10, the oldest that torpor runs on: it is written down what happens without it.

docs/internals/newer-kernels.md says so for each number that the sources type; what 5.10 had already, by its headers, is
in tests/fixtures/linux-5.10.txt.  A new number belongs into one of them.
"""

import re
from pathlib import Path

from harness import without
from torpor.kernel.arch import nr
from unit.kernel.test_uapi import NEWER, NEWER_OPTIONS, constants

PAGE = "docs/internals/newer-kernels.md"
#: How the kernel's numbers are called, outside of kernel/uapi.
_KERNELS = re.compile(
    r"(AT|CLONE|EFD|EPIOC|F|FAN|IFLA|IN|IP|IPV6|KCMP|LANDLOCK|MADV|MAP|MOUNT|MOVE|MS|NS|OPEN|PAGE|PAGEMAP|PIDFD|PM|PR|"
    r"PTRACE|RTM|SECCOMP|SIOC|SO|ST|TCP|TFD|UFFD|UFFDIO)_[A-Z0-9_]+|EPIOC[A-Z]+|PAGEMAP_SCAN"
)
#: What looks like one, and is ours.
_OURS = {
    "FAN_CLASSES", "F_BINDING", "F_OWNER", "IN_IGNORABLE", "IN_MEMORY", "MAP_CREATE", "MAP_FREEZE", "OPEN_EXEC_PERM",
    "MAP_PRIVATE_ANONYMOUS", "AT_ONCE", "PAGE_BYTES", "SECCOMP_DISABLED",
}  # fmt: skip
_ROW = re.compile(r"^\| `(\w+)`[^|]* \| ([567]\.\d+) \| ([^|]+) \| ([^|]*) \|$", re.M)


def used(repository: Path) -> set[str]:
    """The names of the kernel's numbers in the sources, and of its calls."""
    root = repository / "src/torpor"
    found: set[str] = set()
    for path in root.rglob("*.py"):
        text = path.read_text()
        is_header = path.parent.name == "uapi"
        if "/arch/" not in str(path):
            found |= {name for name in constants(text) if is_header or _KERNELS.fullmatch(name)}
    return found - _OURS


def calls(repository: Path) -> set[str]:
    """Those that the sources make or know of, and 5.10, whose last is process_madvise, has not."""
    text = "".join(path.read_text() for path in (repository / "src/torpor").rglob("*.py"))
    return {name for name in re.findall(r"\bnr\.(\w+)", text) if getattr(nr, name) > nr.process_madvise}


def test_what_happens_without_it_is_written_down(repository: Path) -> None:
    rows = _ROW.findall((repository / PAGE).read_text())
    told = {name for name, *_ in rows}
    old = set((repository / "tests/fixtures/linux-5.10.txt").read_text().split())
    wanted = (used(repository) - old) | calls(repository) | NEWER_OPTIONS.keys()
    assert len(old) > 300 and {"MOVE_MOUNT_SET_GROUP", "PR_SET_VMA", "PTRACE_GET_RSEQ_CONFIGURATION"} <= wanted
    assert not wanted - told, "newer than 5.10, or missing in tests/fixtures/linux-5.10.txt"
    assert not {name for name in told if name.isupper()} - wanted, "nobody uses it any more"
    since = {name: version for name, version, *_ in rows}
    assert not {name: version for name, version in (NEWER | NEWER_OPTIONS).items() if since[name] != version}


def test_it_is_taken_away_by_a_test_that_there_is(repository: Path) -> None:
    rows = _ROW.findall((repository / PAGE).read_text())
    tested = [(name, test.strip()) for name, _, _, test in rows if test.strip()]
    assert len(tested) > 15
    for name, test in tested:
        kind, _, what = test.partition(" ")
        if kind == "without":
            assert what in without.TAKEN, f"{name}: {test}"
        else:
            assert (repository / kind).exists(), f"{name}: {test}"
