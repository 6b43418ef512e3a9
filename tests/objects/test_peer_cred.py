import pytest

from harness.flavours import Flavour, carry_through, default_flavours, start


@pytest.mark.root
@pytest.mark.parametrize("flavour", default_flavours())
def test_peer_cred(flavour: Flavour) -> None:
    with start(flavour, "peer_cred") as workload:
        workload.wait_ready()
        # What a restore has made must look to the next dump like what was.
        for _ in range(2):
            carry_through(flavour, workload)
        workload.expect_pass()
