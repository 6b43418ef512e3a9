"""Timers are due when the clock that the program sees says so, however long it was away."""

from pathlib import Path

import pytest

from harness.flavours import Flavour, start, workload_test

test_timers_due = workload_test("timers_due")


@pytest.mark.root
def test_a_restore_that_takes_long_makes_none_late(tmp_path: Path) -> None:
    """Its clocks have been set, and run, while a hook of the restore takes its time."""
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != setup-namespaces ] || exec sleep 3\n')
    slow.chmod(0o755)
    with start(Flavour.FRESH, "timers_due") as workload:
        workload.wait_ready()
        for _ in range(2):
            workload.dump()
            workload.restore(options=["--action-script", str(slow)])
        workload.expect_pass()
