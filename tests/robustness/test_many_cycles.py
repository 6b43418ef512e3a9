"""After many checkpoints and restores a container is as it was after the first one, and so is the machine."""

import os
import re
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from harness.runc import COUNTER, Container

# The mounts of the host are counted.
pytestmark = [pytest.mark.root, pytest.mark.real, pytest.mark.slow, pytest.mark.alone]
#: $TORPOR_CYCLES asks for more.
_N_CYCLES = int(os.environ.get("TORPOR_CYCLES", "20"))
#: What the processes of a machine that does other things too may differ by.
_OTHERS = 20


def _measure(container: Container) -> dict[str, int]:
    """What must not grow: in the container's first process, and around it."""
    proc = Path(f"/proc/{container.pid}")
    inside = subprocess.run(
        ["nsenter", "-t", str(container.pid), "-n", "nft", "list", "ruleset"], capture_output=True, check=False
    )
    groups = [Path("/sys/fs/cgroup") / line.split(":")[1] / line.split(":")[2].lstrip("/")
              for line in (proc / "cgroup").read_text().splitlines()]  # fmt: skip
    return {
        "descriptors": len(list((proc / "fd").iterdir())),
        "mappings": len((proc / "maps").read_text().splitlines()),
        "mounts of the container": len((proc / "mountinfo").read_text().splitlines()),
        "mounts of the host": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "rules": len(inside.stdout),
        "control groups": sum(len(list(group.glob("*/"))) for group in groups if group.is_dir()),
        **_count_images(container.images),
    }


def _count_images(images: Path) -> dict[str, int]:
    """Whether the counter has a child at a checkpoint is chance: so of processes there are always two files."""
    kinds = Counter(re.sub(r"\d+", "N", path.name) for path in images.iterdir())
    n_processes = kinds["core-N.img"]
    counts = [2 if count == n_processes <= 2 else count for count in kinds.values()]
    return {"kinds of image files": len(kinds), "most of a kind": max(counts)}


def _resident_kib(container: Container) -> int:
    status = Path(f"/proc/{container.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _count_processes() -> int:
    """The machine's, but for the dead: those of a container that nobody waits for are the test's own to reap."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                count += Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return count


def test_nothing_grows() -> None:
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        container.wait_counting()
        first: dict[str, int] = {}
        n_processes = resident_kib = 0
        for cycle in range(_N_CYCLES):
            container.checkpoint()
            container.restore()
            container.wait_counting()
            if cycle == 0:
                first, resident_kib = _measure(container), _resident_kib(container)
                n_processes = _count_processes()
        assert _measure(container) == first
        assert _resident_kib(container) <= resident_kib + 64
        assert _count_processes() < n_processes + _OTHERS
