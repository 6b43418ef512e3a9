"""What programs have registered for with membarrier(2), on kernels that tell and on those that do not."""

import pytest

from harness import engine, without
from harness.flavours import workload_test
from harness.workload import Workload

test_membarriers = workload_test("membarriers")


@pytest.mark.root
def test_where_no_kernel_tells_they_are_tried() -> None:
    with Workload.start("membarriers", ["unseen"]) as workload:
        workload.wait_ready()
        with engine.using(without.engine("registrations")):
            workload.dump()
        workload.restore()  # by an engine whose filter would be the program's, too
        workload.expect_pass()
