"""The tree of mounts of a namespace, and what cannot be carried."""

import pytest

from harness import engine
from harness.flavours import Flavour, workload_test
from harness.workload import Workload

# The workload makes a namespace of its own in any case.
test_mounts = workload_test("mounts", flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.JOB))


@pytest.mark.root
@pytest.mark.parametrize("option", ["--net", "--user"])
def test_namespaces_that_are_not_carried_are_refused_by_name(option: str) -> None:
    with Workload.start("counter", prefix=["unshare", option]) as workload:
        workload.wait_ready()
        kind = option.removeprefix("--")
        with pytest.raises(engine.EngineError, match=f"{kind} namespace"):
            engine.dump(workload.pid, workload.images)
        workload.expect_pass()
