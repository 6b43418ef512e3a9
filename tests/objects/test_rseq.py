import pytest

from harness.flavours import Flavour, carry_through, default_flavours
from harness.workload import Workload


@pytest.mark.root
@pytest.mark.parametrize("flavour", [each for each in default_flavours() if each is not Flavour.CONTROL])
def test_rseq(flavour: Flavour) -> None:
    # An area of the workload's own can be registered only where the C library has none.
    with Workload.start("rseq", prefix=["env", "GLIBC_TUNABLES=glibc.pthread.rseq=0"]) as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
