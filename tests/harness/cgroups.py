"""Control groups made for a test, and what the kernel says of who is in them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.events import time_limit_s
from harness.skips import missing

_TIMEOUT_S = 10


def mounted(hierarchy: str) -> Path:
    """Where the hierarchy (a controller of v1, or "" for v2) is mounted; skips the test if it is not."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        head, _, tail = line.partition(" - ")
        fstype, _, options = tail.split(" ", 2)
        fields = head.split()
        if fields[3] != "/" or fstype != ("cgroup" if hierarchy else "cgroup2"):
            continue
        if not hierarchy or hierarchy in options.split(","):
            return Path(fields[4])
    missing(f"control groups of {hierarchy or 'v2'}, mounted")


@contextmanager
def group(hierarchy: str, name: str = "") -> Iterator[Path]:
    """A new control group below the hierarchy's root, removed with all below it once its tasks are gone."""
    path = mounted(hierarchy) / f"torpor-test-{os.getpid()}{name}"
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Remove a group and those below it, with whoever is still in it."""
    if not path.exists():
        return
    for name in ("freezer.state", "cgroup.freeze"):
        with suppress(OSError):
            (path / name).write_text("THAWED" if name == "freezer.state" else "0")
    for below in [each for each in path.iterdir() if each.is_dir()]:
        remove(below)
    end = time.monotonic() + time_limit_s(_TIMEOUT_S)
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            # Nobody tells when the last task of a group is dead for the kernel, too.
            if time.monotonic() > end:
                raise
        for pid in _tasks(path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _tasks(path: Path) -> list[int]:
    try:
        return [int(word) for word in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def entering(*groups: Path) -> list[str]:
    """A prefix for a command, which puts it into the groups."""
    lines = "; ".join(f"echo 0 > {path}/cgroup.procs" for path in groups)
    return ["sh", "-c", f'{lines}; exec "$@"', "sh"]


def where(task: int | str, path: Path) -> str:
    """The group of a task (``PID`` or ``PID/task/TID``) in the hierarchy that `path` is in, from the root."""
    top = next(parent for parent in [path, *path.parents] if parent.is_mount())
    device = os.stat(top).st_dev
    for line in Path(f"/proc/{task}/cgroup").read_text().splitlines():
        _, hierarchy, found = line.split(":", 2)
        if hierarchy.startswith("name="):
            continue
        if os.stat(mounted(hierarchy.split(",")[0])).st_dev == device:
            return found
    raise LookupError(f"{task} is in no group of {top}")
