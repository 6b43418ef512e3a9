import pytest

from harness.engine import EngineError
from harness.flavours import Flavour, workload_test
from harness.workload import Workload

test_namespace_files = workload_test(
    "namespace_files", flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING, Flavour.JOB)
)


@pytest.mark.root
def test_a_namespace_of_others_is_refused() -> None:
    prefix = ["sh", "-c", 'exec 5</proc/self/ns/uts && exec unshare --uts "$@"', "sh"]
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match=r"fd 5 .* is a namespace that no process of the tree is in"):
            workload.dump()
        workload.expect_pass()
