from pathlib import Path

import pytest

import torpor
from harness.flavours import Flavour, start, workload_test
from torpor.images import kinds
from torpor.images.store import load_one
from torpor.images.stores.directory import DirStore
from torpor.objects.task import scheduling

test_scheduling = workload_test("scheduling")


@pytest.mark.root
def test_an_io_priority_of_no_class_is_nobodys_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """5.10 tells level 4 where none has been chosen, and would not take it."""
    monkeypatch.setattr(scheduling, "_get_ioprio", lambda tid: 4)
    with start(Flavour.HOST, "counter") as workload:
        workload.wait_ready()
        torpor.dump(workload.pid, tmp_path, leave_running=True)
        with DirStore(tmp_path, "r") as store:
            assert not load_one(store, kinds.CORE, workload.pid).thread_core.HasField("torpor_ioprio")
        workload.expect_pass()
