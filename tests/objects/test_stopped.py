from pathlib import Path

import pytest

import torpor
from harness.flavours import Flavour, start, workload_test
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.engine.dump import collecting
from torpor.images import kinds
from torpor.images.store import load_all, load_one
from torpor.images.stores.directory import DirStore
from torpor.kernel.procfs.stat import Stat, read_stat

test_stopped = workload_test("stopped")


@pytest.mark.root
def test_who_has_been_told_is_known_where_proc_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On 5.10 the last field of stat is 0 for whoever is stopped."""

    def read(pid: Pid) -> Stat:
        return replace(read_stat(pid), exit_code=0)

    monkeypatch.setattr(collecting, "read_stat", read)
    with start(Flavour.HOST, "stopped") as workload:
        workload.wait_ready()
        torpor.dump(workload.pid, tmp_path, leave_running=True)
        with DirStore(tmp_path, "r") as store:
            pids = [entry.pid for entry in load_all(store, kinds.PSTREE)]
            stopped = [core for core in (load_one(store, kinds.CORE, pid).tc for pid in pids) if core.stop_signo]
        assert [core.torpor_stop_reported for core in stopped] == [True, False, True]
        workload.expect_pass()
