"""Mappings of many sorts, some of them close to the kernel's limit (vm.max_map_count)."""

from pathlib import Path

import pytest

from harness import engine
from harness.flavours import Flavour, carry_through, start, workload_test
from harness.rounds import rounds
from harness.workload import Workload

SORTS = (
    "protection", "none", "code", "advice", "unforked", "holes", "file", "shared", "locked", "locked-none", "apart",
)  # fmt: skip
#: Mappings that the program has besides, at most.
OTHERS = 60

test_locked_without_access = workload_test("many_mappings", args=("locked-none", "200", "forked"))


@pytest.mark.root
@pytest.mark.parametrize("sort", SORTS)
def test_some(sort: str) -> None:
    with start(Flavour.HOST, "many_mappings", [sort, "300", "forked"]) as workload:
        workload.wait_ready()
        carry_through(Flavour.HOST, workload)
        workload.expect_pass()


@pytest.mark.root
@pytest.mark.parametrize("sort", SORTS[: rounds(1, len(SORTS))])
def test_near_the_limit(sort: str) -> None:
    with start(Flavour.HOST, "many_mappings", [sort, str(_limit() - OTHERS), "forked"]) as workload:
        workload.wait_ready()
        carry_through(Flavour.HOST, workload)
        workload.expect_pass()


@pytest.mark.root
def test_at_the_limit() -> None:
    """Refused before anything is frozen: restoring takes a few more for a while."""
    with Workload.start("many_mappings", ["protection", str(_limit() - OTHERS)]) as workload:
        workload.wait_ready()
        spare = _limit() - len(Path(f"/proc/{workload.pid}/maps").read_text().splitlines())
    with Workload.start("many_mappings", ["protection", str(_limit() - OTHERS + spare - 2)]) as workload:
        workload.wait_ready()
        with pytest.raises(engine.EngineError, match=r"vm\.max_map_count"):
            workload.dump()
        workload.expect_pass()


def _limit() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))
