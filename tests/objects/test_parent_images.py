"""Sets of images whose pages lie in part in the images of earlier dumps, as CRIU writes them with --prev-images-dir."""

import shutil

import pytest

from harness import generations, parent_images
from harness.engine import EngineError
from harness.workload import Workload
from torpor.engine.sets.contents import Checkpoint

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
