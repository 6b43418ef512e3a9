"""A pid that another process has."""

import pytest

from harness import engine
from harness.workload import Workload


@pytest.mark.root
@pytest.mark.parametrize("name", ["counter", "threads"])
def test_who_has_the_pid_is_named(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump(leave_running=True)
        with pytest.raises(engine.EngineError, match=rf"pid {workload.pid} is taken by {name}"):
            engine.restore(workload.images)
        workload.expect_pass()
