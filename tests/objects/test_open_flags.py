import pytest

from harness.flavours import workload_test
from harness.workload import Workload

test_open_flags = workload_test("open_flags")


@pytest.mark.root
def test_open_flags_twice() -> None:
    with Workload.start("open_flags") as workload:
        workload.wait_ready()
        for _ in range(2):
            workload.dump()
            workload.restore()
        workload.expect_pass()
