import pytest

from harness.engine import EngineError
from harness.flavours import workload_test
from harness.workload import Workload

test_file_locks = workload_test("file_locks", dump_options=["--file-locks"], restore_options=["--file-locks"])


@pytest.mark.root
def test_refused_without_the_option() -> None:
    with Workload.start("file_locks") as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="--file-locks"):
            workload.dump()
        workload.expect_pass()
