import pytest

from harness.flavours import Flavour, carry_through, start
from harness.skips import need_mounted_root


@pytest.mark.root
@pytest.mark.parametrize("where", ["plain", "overlay"])
@pytest.mark.parametrize("flavour", [Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING])
def test_watchers_are_not_told_of_us(flavour: Flavour, where: str) -> None:
    if where == "overlay":
        need_mounted_root()
    with start(flavour, "watchers", [where]) as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
