"""Many processes, side by side and each the parent of the next, with threads, stopped ones and dead ones."""

import pytest

from harness.flavours import workload_test
from harness.rounds import rounds
from harness.workload import Workload

test_wide = workload_test("brood", args=("wide", "12", "2", "3", "3"))
test_deep = workload_test("brood", args=("deep", "12", "1"))


@pytest.mark.root
def test_a_long_chain() -> None:
    """Longer than Python's calls may be nested; in CI only as long as it has time for."""
    with Workload.start("brood", ("deep", str(rounds(60, 1200)))) as workload:
        workload.wait_ready(120)
        workload.dump(options=["--timeout", "120"])
        workload.restore()
        workload.expect_pass()
