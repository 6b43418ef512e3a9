from pathlib import Path

import pytest

import torpor
from harness import engine, without
from harness.flavours import Flavour, start, workload_test
from torpor.base.errors import RefusedError
from torpor.engine.dump import preflight
from torpor.engine.options import DumpOptions
from torpor.objects.task import posix_timers

test_posix_timers = workload_test("posix_timers")


@pytest.mark.root
def test_a_high_id_is_found_by_trial_where_the_kernel_gives_none() -> None:
    """Before 6.15 they come up one after the other."""
    with start(Flavour.HOST, "timer_ids", ["3000"]) as workload:
        workload.wait_ready()
        with engine.using(without.engine("prctls")):
            workload.dump()
            workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_one_that_is_too_high_for_that_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(posix_timers, "_IDS_BY_TRIAL", 50)
    monkeypatch.setattr(posix_timers, "_are_given", lambda: False)
    with start(Flavour.HOST, "timer_ids", ["50"]) as workload:
        workload.wait_ready()
        # Found in a tree that runs.
        (problem,) = preflight.examine(workload.pid, DumpOptions()).problems
        assert "has POSIX timer 50, whose id this kernel could not give it again" in str(problem)
        with pytest.raises(RefusedError, match="POSIX timer 50"):
            torpor.dump(workload.pid, tmp_path / "ended")
        # Who goes on loses nothing.
        torpor.dump(workload.pid, tmp_path / "left", leave_running=True)
        workload.expect_pass()
