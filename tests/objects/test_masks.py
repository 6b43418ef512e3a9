"""Mounts that hide names of /proc and /sys, as container runtimes make them, over what another kernel does not have."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.engine import EngineError
from harness.flavours import Flavour, start
from harness.skips import need_mounted_root
from harness.workload import Workload
from torpor.images import kinds
from torpor.images.store import load_all, load_one, store_all
from torpor.images.stores.directory import DirStore
from torpor.kernel.procfs.mountinfo import read_mountinfo

pytestmark = pytest.mark.root
_FILE, _DIRECTORY = "/proc/interrupts", "/proc/fs"


def _run_in(workload: Workload, *words: str) -> None:
    subprocess.run(["nsenter", f"--mount=/proc/{workload.pid}/ns/mnt", *words], check=True)


@contextmanager
def _masked(options: str = "ro,size=0k") -> Iterator[Workload]:
    """A workload with a file and a directory of its /proc hidden."""
    need_mounted_root()
    for place in (_FILE, _DIRECTORY):
        assert os.path.exists(place)
    with start(Flavour.FRESH, "counter") as workload:
        workload.wait_ready()
        _run_in(workload, "mount", "--bind", "/dev/null", _FILE)
        _run_in(workload, "mount", "-t", "tmpfs", "-o", options, "torpor", _DIRECTORY)
        workload.dump()
        yield workload
        workload.expect_pass()


def _move(workload: Workload, old: str, new: str) -> None:
    """Have the images say *new* where they say *old*, as if they came from a kernel that has that."""
    (workload.images / "torpor.manifest").unlink(missing_ok=True)
    with DirStore(workload.images, "r") as store:
        root = next(iter(load_all(store, kinds.PSTREE))).pid
        ident = load_one(store, kinds.IDS, root).mnt_ns_id
        entries = list(load_all(store, kinds.MNTS, ident))
    found = [entry for entry in entries if entry.mountpoint == old]
    assert len(found) == 1
    found[0].mountpoint = new
    with DirStore(workload.images, "w") as out:
        store_all(out, "MNTS", entries, ident)


def _points(workload: Workload) -> list[str]:
    return [mount.point for mount in read_mountinfo(str(workload.pid))]


def test_masks_of_what_this_kernel_does_not_have_are_left_out() -> None:
    with _masked() as workload:
        _move(workload, _FILE, "/proc/of_no_kernel")
        _move(workload, _DIRECTORY, "/proc/of_no_kernel_either")
        workload.restore()
        said = (workload.images / "restore.log").read_text()
        for name in ("of_no_kernel", "of_no_kernel_either"):
            assert re.search(rf"/proc/{name}: this kernel has nothing of that name.* left out", said), said
        assert not [point for point in _points(workload) if point.startswith("/proc/of_no")]


def test_masks_of_what_is_there_stay() -> None:
    with _masked() as workload:
        workload.restore()
        assert {_FILE, _DIRECTORY} <= set(_points(workload))


def test_a_directory_that_may_be_filled_is_no_mask() -> None:
    with _masked("rw,size=4k") as workload:
        _move(workload, _DIRECTORY, "/proc/of_no_kernel")
        with pytest.raises(EngineError, match="/proc/of_no_kernel cannot be mounted"):
            workload.restore()
        _move(workload, "/proc/of_no_kernel", _DIRECTORY)
        workload.restore()
