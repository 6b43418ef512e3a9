"""Which tests of kernel objects run in machines, and what came of them: one line an object and kernel.

`docs/kernels.tsv` keeps those of the last runs, by kernel; tools/gen_kernels.py makes the table of
docs/support-matrix.md of it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from vm.payload import REPOSITORY

RESULTS = REPOSITORY / "docs/kernels.tsv"
#: What each workload goes through there.  Where it fails, `TORPOR_VM_FLAVOURS=control` tells whether it is the kernel.
KEPT_FLAVOURS = ("host",)
FLAVOURS = tuple(os.environ.get("TORPOR_VM_FLAVOURS", "host").split(","))
#: What another engine beside ours is called: its results stand in a column of their own.
PEER_NAME = os.environ.get("TORPOR_VM_PEER_NAME", "peer")
#: One of each sort of object, and what has met other kernels' ways before: minutes, where all of them take an hour.
CHOSEN = (
    "counter", "threads", "private_memory", "sparse", "shared_anonymous", "memfd", "growing_stack", "vdso", "rseq",
    "signals", "posix_timers", "itimers", "timerfd", "eventfd", "signalfd", "epoll", "inotify", "pidfd",
    "pipe_contents", "fifos", "pty", "plain_files", "ghost_files", "file_locks", "unix_pairs", "tcp_pair",
    "tcp_listen", "udp", "mqueue", "sysv_ipc", "seccomp_filters", "scheduling", "credentials", "zombies",
)  # fmt: skip
#: What pytest says when it ends early.
_INTERRUPTED = "KeyboardInterrupt"
PASSED, MISSING, FAILED = "passed", "missing", "failed"
#: The property of a test that says how many objects came out how, for the run's last lines.
COUNTED = "objects"

#: Why a test of an object fails on a kernel, where it is not torpor that is wrong.
EXPLAINED: dict[tuple[str, str], str] = {
    ("5.10", "bpf_maps"): "the workload: maps count as locked memory before 5.11, of which it may have too little",
    ("5.10", "clocks"): "the tests' own user namespace cannot read /proc/self/fdinfo; all else passes",
    ("5.10", "ghost_names"): "the tests' own user namespace cannot read /proc/self/fdinfo; all else passes",
    ("5.10", "mounts"): "refused before anything is stopped: mounts that belong together want Linux 5.15",
    ("5.10", "nested_mounts"): "refused before anything is stopped: mounts that belong together want Linux 5.15",
    ("5.10", "memfd"): "the workload: a memfd sealed against writing cannot be mapped shared before 6.7",
    ("7.x", "many_mappings"): "65,470 mappings with a page each fill the machine's disk, which has 1.2 GB",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of all tests of one object on one kernel: the worst that came, and why."""

    kernel: str
    release: str
    name: str
    result: str
    reason: str


def names() -> list[str]:
    """All of CHOSEN, or what $TORPOR_VM_OBJECTS names instead."""
    return os.environ.get("TORPOR_VM_OBJECTS", "").split() or list(CHOSEN)


def chosen() -> list[str]:
    """The files of their tests, from the repository's root."""
    return [f"tests/objects/test_{name}.py" for name in names()]


def outcomes(kernel: str, release: str, junit: Path, output: str = "") -> list[Outcome]:
    """What pytest's report says, an object a line; without one, as when time was up, what pytest had printed."""
    found: dict[str, list[tuple[str, str]]] = {}
    if junit.exists():
        for case in ElementTree.parse(junit).iter("testcase"):
            name = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
            if name:  # an interrupted run has a case without one
                found.setdefault(name, []).append(_of_case(case))
    else:
        for name, word in re.findall(r"^tests/objects/test_(\w+)\.py::.* (PASSED|FAILED|ERROR|SKIPPED) ", output, re.M):
            result = {"PASSED": PASSED, "SKIPPED": MISSING}.get(word, FAILED)
            found.setdefault(name, []).append((result, "" if result == PASSED else "the run ended before it said why"))
    if not junit.exists() or _INTERRUPTED in output:
        # Of the one at which it was, not all has been seen.
        begun = re.findall(r"^tests/objects/test_(\w+)\.py::", output, re.M)
        found.pop(begun[-1] if begun else "", None)
    return [Outcome(kernel, release, name, *_worst(results)) for name, results in sorted(found.items())]


def counts(found: Iterable[Outcome]) -> dict[str, int]:
    """How many came out how, in the words of a run's last lines."""
    return dict(Counter(f"objects {each.result}" for each in found))


def _of_case(case: ElementTree.Element) -> tuple[str, str]:
    for tag, result in (("failure", FAILED), ("error", FAILED), ("skipped", MISSING)):
        if (node := case.find(tag)) is not None:
            return result, _reason(f"{node.get('message') or ''}\n{node.text or ''}")
    return PASSED, ""


def _reason(text: str) -> str:
    """What was missing; what the program found wrong; or the engine's own last error, which a user would see."""
    if told := re.search(r"missing: (.*)", text):
        return told[1].strip()
    if found := re.search(r"^(?:E +)?status: fail: (.*)", text, re.M):
        # Where its source was when it was compiled is no matter.
        told_by_it = re.sub(r"\S*/(\w+\.c:)", r"\1", found[1].strip())
        return f"the program: {told_by_it}"[:200]
    errors: list[str] = re.findall(r"\(\d+\.\d+\) Error \([^)]*\): (.*)", text)
    # CRIU says at the end of each of its layers that something has failed, and only before what it was.
    errors = [error for error in errors if not re.search(r"FAILED\.$|failed with -\d+$", error)] or errors[:1]
    return (errors[-1] if errors else text.strip().splitlines()[0] if text.strip() else "")[:200]


def _worst(results: Iterable[tuple[str, str]]) -> tuple[str, str]:
    order = (FAILED, MISSING, PASSED)
    return min(results, key=lambda each: order.index(each[0]))


def read() -> list[Outcome]:
    """What is kept."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [Outcome(*line.split("\t")) for line in lines]


def keep(new: Iterable[Outcome]) -> None:
    """Have these stand for what was kept of the same objects and kernels."""
    rows = {(each.name, each.kernel): each for each in read()}
    rows.update({(each.name, each.kernel): each for each in new})
    ordered = sorted(rows.values(), key=lambda each: (each.name, order(each.kernel)))
    lines = ["\t".join((row.kernel, row.release, row.name, row.result, row.reason)) for row in ordered]
    RESULTS.write_text("\n".join(lines) + "\n")


def order(kernel: str) -> tuple[list[int], str]:
    """The kernels in theirs, each followed by the other engines on it."""
    number, _, peer = kernel.partition(" ")
    return [int(part) if part.isdigit() else 99 for part in number.split(".")], peer
