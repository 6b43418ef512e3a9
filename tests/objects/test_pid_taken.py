"""A pid that another process has."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import engine
from harness.events import become_subreaper, wait_said
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


def _dumped_and_unreaped(workload: Workload) -> None:
    """Its root is dead, and we have not waited for it."""
    workload.wait_ready()
    engine.dump(workload.pid, workload.images)


@pytest.mark.root
def test_a_dead_one_is_waited_for() -> None:
    with Workload.start("counter") as workload:
        _dumped_and_unreaped(workload)

        with ThreadPoolExecutor() as pool:
            # Not by Workload.restore, which reaps.
            restored = pool.submit(engine.restore, workload.images)
            is_said = wait_said(workload.images / "restore.log", "is not free yet", restored.done)
            workload.reap()
            pid = restored.result()
        assert is_said
        assert pid == workload.pid
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.root
def test_a_dead_one_that_stays_is_named() -> None:
    become_subreaper()
    with Workload.start("counter") as workload:
        _dumped_and_unreaped(workload)
        with pytest.raises(engine.EngineError, match=rf"dead, but pid {os.getpid()} \(.*\) has not waited for it"):
            engine.restore(workload.images)
