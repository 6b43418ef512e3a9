import pytest

from harness.engine import EngineError
from harness.flavours import Flavour, workload_test
from harness.workload import Workload

test_sysv_attached = workload_test("sysv_attached", flavours=(Flavour.CONTROL, Flavour.JOB))


@pytest.mark.root
def test_a_segment_of_the_host_is_refused() -> None:
    with Workload.start("sysv_attached") as workload:
        workload.wait_ready()
        with pytest.raises(EngineError) as caught:
            workload.dump()
        assert "System V segment of the host" in caught.value.log
        workload.expect_pass()
