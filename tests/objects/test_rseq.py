import pytest

from harness.flavours import Flavour, carry_through
from harness.workload import Workload


@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.HOST_RUNNING])
def test_rseq(flavour: Flavour) -> None:
    # An area of the workload's own can be registered only where the C library has none.
    with Workload.start("rseq", prefix=["env", "GLIBC_TUNABLES=glibc.pthread.rseq=0"]) as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
