import pytest

from harness.engine import EngineError
from harness.workload import Workload

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("io_uring", "fd 3 of .*io_uring keeps"),
        ("userfaultfd", "page faults"),
        ("/dev/fuse", "device 10:229 "),
        ("leaderless", "the main thread has exited"),
    ],
)
def test_it_is_refused_by_name_and_runs_on(what: str, said: str) -> None:
    with Workload.start("uncarriable", [what]) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match=said):
            workload.dump()
        workload.expect_pass()
