import pytest

from harness.engine import EngineError
from harness.flavours import workload_test
from harness.workload import Workload

test_mq_notify = workload_test("mq_notify")


@pytest.mark.root
def test_a_dump_that_fails_takes_back_what_it_has_set_off() -> None:
    with Workload.start("mq_notify", ["child"]) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="more than --ghost-limit"):
            workload.dump(options=["--ghost-limit", "4K"])
        workload.expect_pass()
