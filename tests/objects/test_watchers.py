import pytest

from harness import engine, without
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


@pytest.mark.root
def test_nor_are_they_where_handles_lead_nowhere() -> None:
    """As those of an overlay do before 6.6."""
    need_mounted_root()
    with start(Flavour.HOST_RUNNING, "watchers", ["overlay"]) as workload:
        workload.wait_ready()
        with engine.using(without.engine("name_to_handle_at")):
            carry_through(Flavour.HOST_RUNNING, workload)
        workload.expect_pass()
