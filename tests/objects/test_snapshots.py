"""Snapshots: memory is copied while its owner runs on, as it was when that was stopped."""

from collections.abc import Sequence

import pytest

from harness.events import ProcessWatch
from harness.processes import kill_tree
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.kernel.procfs.task import read_children

pytestmark = pytest.mark.root

TAKEN = "dump: snapshots' memory"


def go_on_from(workload: Workload, options: Sequence[str] = ("--snapshot", "always")) -> str:
    """Dump it while it goes on, end it, restore it and have it check itself; the log of the dump."""
    workload.dump(leave_running=True, options=options)
    assert read_children(Pid(workload.pid)) == []
    log = (workload.images / "dump.log").read_text()
    watch = ProcessWatch(workload.pid)
    kill_tree(workload.mark, watch)
    workload.reap()
    workload.restore()
    workload.expect_pass()
    return log


KINDS = (
    "dontfork", "wipeonfork", "locked", "transparent", "mergeable", "shared", "memfd", "file", "guarded", "unreadable",
    "zeroes",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_contents_are_those_of_one_instant(kind: str) -> None:
    with Workload.start("rewritten", ["32", *([kind] if kind != "none" else [])]) as workload:
        workload.wait_ready()
        log = go_on_from(workload)
        assert "a snapshot of" in log
