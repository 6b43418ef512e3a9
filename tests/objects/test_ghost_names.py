"""A deleted file by two names on two mounts, carried twice: a restored name is one that can be dumped again."""

import pytest

from harness.flavours import Flavour, carry_through, start
from harness.skips import need_mounted_root


@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.JOB, Flavour.FRESH, Flavour.USER])
def test_ghost_names(flavour: Flavour) -> None:
    if flavour is not Flavour.JOB:
        need_mounted_root()
    with start(flavour, "ghost_names") as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        carry_through(flavour, workload)
        workload.expect_pass()
