"""Sets of images whose pages lie in part in the images of earlier dumps, as CRIU writes them with --prev-images-dir."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import generations, parent_images
from harness.edited import forget_manifest
from harness.engine import EngineError
from harness.workload import Workload
from torpor.engine.sets.contents import Checkpoint
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import PAGE_BYTES, PE_LAZY, PageRun, load_pagemap, store_pagemap
from torpor.images.store import load_one, store_one
from torpor.images.stores.directory import DirStore

pytestmark = pytest.mark.root

#: Private memory, its changes in a child, shared memory, memfd, and what must be moved for another vdso.
WORKLOADS = ("private_memory", "copy_on_write", "family", "shared_anonymous", "memfd", "vdso")
#: What knows whether its pages have been touched from outside: are still shared, still holes.
TOUCHED = ("private_memory", "copy_on_write", "memfd")


@pytest.mark.parametrize("name", WORKLOADS)
def test_pages_in_the_parents_are_restored(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump()
        before = Checkpoint(workload.images).processes[0].command
        assert parent_images.split(workload.images) > 10
        assert Checkpoint(workload.images).processes[0].command == before
        workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("name", ["private_memory", "shared_anonymous", "memfd", "sysv_attached", "copy_on_write"])
def test_each_page_is_that_of_the_last_moment(name: str) -> None:
    """Of three dumps between which the memory changes, private and shared, of a parent and of its child."""
    start = Workload.start_in_job if name == "sysv_attached" else Workload.start
    with start(name) as workload:
        workload.wait_ready()
        changed, memory = generations.dump(workload)
        assert len(changed) > 4
        workload.restore()
        assert not generations.changes_in(workload, memory)
        if name not in TOUCHED:
            generations.put_back(workload, changed)
            workload.expect_pass()


def test_pages_of_another_size_are_refused() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        forget_manifest(workload.images)
        with DirStore(workload.images, "w") as store:
            inventory = load_one(store, kinds.INVENTORY)
            inventory.torpor_page_bytes = 1 << 16
            store_one(store, kinds.INVENTORY, inventory)
        with pytest.raises(EngineError, match="pages of 65536 bytes, and this kernel has"):
            workload.restore()
        assert not workload.processes()


@pytest.mark.parametrize("lost", ["the directory", "the page map"])
def test_a_lost_parent_is_told(lost: str) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        pid = workload.pid
        workload.dump()
        parent_images.split(workload.images)
        parent = workload.base / "parent-1"
        if lost == "the directory":
            shutil.rmtree(parent)
        else:
            (parent / f"pagemap-{pid}.img").unlink()
        with pytest.raises(EngineError, match=r"parent"):
            workload.restore()


def _link(images: Path, target: str) -> None:
    (images / "parent").unlink()
    (images / "parent").symlink_to(target)


def _loop(images: Path, pid: int) -> None:
    _link(images.parent / "parent-1", f"../{images.name}")


def _its_own_parent(images: Path, pid: int) -> None:
    _link(images, ".")


def _a_file(images: Path, pid: int) -> None:
    _link(images, "inventory.img")


def _over_each_other(images: Path, pid: int) -> None:
    with DirStore(images.parent / "parent-1", "w") as store:
        found = load_pagemap(store, pid)
        first, second = [run for run in found.runs if run.in_parent][:2]
        image = images.parent / "parent-1" / f"pagemap-{pid}.img"
        content = image.read_bytes()
        entries = [
            m.pagemap_entry(vaddr=run.vaddr, compat_nr_pages=1, nr_pages=1, flags=run.flags) for run in (first, second)
        ]
        before, after = (entry.SerializeToString() for entry in entries)
        assert len(before) == len(after) and content.count(after) == 1
        image.write_bytes(content.replace(after, before))


def _without_a_page(images: Path, pid: int) -> None:
    with DirStore(images.parent / "parent-1", "w") as store:
        found = load_pagemap(store, pid)
        left = [run for run in found.runs if not run.in_parent]
        store_pagemap(store, pid, found.pages_id, left)


def _left_to_a_page_server(images: Path, pid: int) -> None:
    with DirStore(images.parent / "parent-1", "w") as store:
        found = load_pagemap(store, pid)
        runs = [PageRun(run.vaddr, run.n_pages, PE_LAZY if run.in_parent else run.flags) for run in found.runs]
        store_pagemap(store, pid, found.pages_id, runs)


def _cut_off(images: Path, pid: int) -> None:
    with DirStore(images.parent / "parent-2") as store:
        os.truncate(images.parent / "parent-2" / load_pagemap(store, pid).pages_name, PAGE_BYTES)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_loop, "leads back"), (_its_own_parent, "leads back"), (_a_file, "parent.*[Nn]ot a directory"),
        (_over_each_other, "begins before the end"), (_without_a_page, "the pages at"),
        (_left_to_a_page_server, "page server"), (_cut_off, "truncated"),
    ],
)  # fmt: skip
def test_parents_that_cannot_be_are_refused(spoil: Callable[[Path, int], None], told: str) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        pid = workload.pid
        workload.dump()
        parent_images.split(workload.images)
        spoil(workload.images, pid)
        with pytest.raises(EngineError, match=told):
            workload.restore()
        assert not workload.processes()


def test_zeroes_take_no_room_in_memory_either() -> None:
    """A terabyte of them, which is a few bytes of images: a memory that is empty has them without being filled."""
    with Workload.start("private_memory") as workload:
        workload.wait_ready()
        pid = workload.pid
        workload.dump()
        forget_manifest(workload.images)
        with DirStore(workload.images, "w") as store:
            found = load_pagemap(store, pid)
            entries = load_one(store, kinds.MM, pid).vmas
            sparse = next(entry for entry in entries if entry.prot == 3 and entry.end - entry.start >= 1 << 40)
            inside = [run for run in found.runs if sparse.start <= run.vaddr < sparse.end]
            zeroes = PageRun(inside[-1].end, (sparse.end - inside[-1].end) // PAGE_BYTES, 0)
            runs = sorted([*found.runs, zeroes], key=lambda run: run.vaddr)
            store_pagemap(store, pid, found.pages_id, runs)
        workload.restore()
        status = Path(f"/proc/{workload.pid}/status").read_text()
        assert int(status.split("VmRSS:")[1].split()[0]) < 1 << 20
        workload.expect_pass()
