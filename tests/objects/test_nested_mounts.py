import pytest

from harness.flavours import Flavour, carry_through, start
from harness.skips import need_mounted_root


# The workload makes namespaces of its own in any case.
@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.CONTROL, Flavour.HOST, Flavour.JOB, Flavour.FRESH, Flavour.USER])
def test_nested_mounts(flavour: Flavour) -> None:
    if flavour is not Flavour.JOB:
        need_mounted_root()
    with start(flavour, "nested_mounts") as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
