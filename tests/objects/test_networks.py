import pytest

from harness.flavours import Flavour, carry_through, start


# The workload makes namespaces of its own in any case.
@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.CONTROL, Flavour.HOST, Flavour.JOB])
def test_networks(flavour: Flavour) -> None:
    with start(flavour, "networks") as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
