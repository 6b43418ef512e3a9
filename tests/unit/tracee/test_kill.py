"""Ending a frozen tree: every thread is reaped, whichever of a namespace's first process is the last to die."""

import pytest

from harness.events import time_limit_s
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.engine.time_limit import time_limit
from torpor.tracee.remote import kill_and_reap
from torpor.tracee.tree import freeze

pytestmark = pytest.mark.root


@pytest.mark.parametrize("number", range(10))
def test_the_first_process_of_a_pid_namespace_with_many_threads(number: int) -> None:
    with Workload.start_in_job("threads") as workload:
        workload.wait_ready()
        with freeze(Pid(workload.pid)) as tree:
            assert len(tree.root.threads) > 3
            with time_limit(int(time_limit_s(20)), "killing it"):
                tree.kill()


def test_a_task_of_the_namespace_that_nobody_has_noted() -> None:
    with Workload.start_in_job("family") as workload:
        workload.wait_ready()
        with freeze(Pid(workload.pid)) as tree:
            first = list(tree.root.threads)
            assert len(list(tree.root.iter_tree())) > 1
            with time_limit(int(time_limit_s(20)), "killing it"):
                kill_and_reap(first)
            tree.kill()
