import pytest

from harness.flavours import Flavour, carry_through, start
from harness.skips import need_mounted_root


# The workload makes a namespace of its own in any case.
@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.CONTROL, Flavour.HOST, Flavour.JOB, Flavour.FRESH])
def test_overlay(flavour: Flavour) -> None:
    if flavour is not Flavour.JOB:
        need_mounted_root()
    with start(flavour, "overlay") as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
