"""--leave-stopped of dump and restore, --restore-sibling: what becomes of the tree."""

import os
import signal
from pathlib import Path

import pytest

from harness import engine
from harness.workload import Workload

pytestmark = pytest.mark.root


def states(workload: Workload) -> set[str]:
    return {
        Path(f"/proc/{pid}/task/{tid.name}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        for pid in workload.processes()
        for tid in Path(f"/proc/{pid}/task").iterdir()
    }


def continue_all(workload: Workload) -> None:
    for pid in workload.processes():
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("name", ["vectors", "family"])
def test_left_stopped_by_dump(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        engine.dump(workload.pid, workload.images, options=["--leave-stopped"])
        assert states(workload) == {"T"}
        continue_all(workload)
        workload.expect_pass()


@pytest.mark.parametrize("name", ["vectors", "family"])
def test_left_stopped_by_restore(name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore(options=["--leave-stopped"])
        assert states(workload) == {"T"}
        continue_all(workload)
        workload.expect_pass()


def test_sibling() -> None:
    with Workload.start("vectors") as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore(options=["--restore-sibling"])
        workload.expect_pass()
