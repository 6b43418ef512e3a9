"""What forks without a pause.  Alone: it goes through all pids of the machine in a second or two.

Whoever is checkpointed gives his pids back, and elsewhere they are given away only after all others.
"""

import pytest

from harness.flavours import workload_test
from harness.workload import Workload

pytestmark = pytest.mark.alone

test_fork_storm = workload_test("fork_storm")


@pytest.mark.root
def test_again_and_again() -> None:
    with Workload.start("fork_storm") as workload:
        workload.wait_ready()
        for _ in range(5):
            workload.dump(leave_running=True)
        for _ in range(3):
            workload.dump()
            workload.restore()
        workload.expect_pass()
