"""Sets of images whose pages lie in part in the images of earlier dumps, as CRIU writes them with --prev-images-dir."""

import shutil

import pytest

from harness import parent_images
from harness.engine import EngineError
from harness.workload import Workload
from torpor.engine.sets.contents import Checkpoint

pytestmark = pytest.mark.root

#: Private memory, its changes in a child, shared memory, memfd, and what must be moved for another vdso.
WORKLOADS = ("private_memory", "copy_on_write", "family", "shared_anonymous", "memfd", "vdso")


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
