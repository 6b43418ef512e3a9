"""--leave-stopped of dump and restore, --restore-sibling: what becomes of the tree."""

import os
import signal
import time
from pathlib import Path

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.skips import need_mounted_root
from harness.workload import Workload
from torpor.objects.ns import timens

pytestmark = pytest.mark.root


def states(workload: Workload) -> set[str]:
    """Of all threads, once none is on its way: a stopped one that is let go of gets there when there is a processor."""
    deadline = time.monotonic() + time_limit_s(10)
    while (found := _states(workload)) & {"R", "D"} and time.monotonic() < deadline:
        os.sched_yield()
    return found


def _states(workload: Workload) -> set[str]:
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


_TIME = ["unshare", "--time", "--monotonic", "5000"]
_USER = ["unshare", "--map-root-user"]
#: Who has a user namespace, and none of pids, gets the machine's next pid: somebody beside us might be faster.
_PREFIXES = [
    pytest.param((), id="plain"),
    pytest.param(_TIME, id="time"),
    pytest.param(_USER, id="user", marks=pytest.mark.alone),
    pytest.param([*_TIME, *_USER[1:]], id="both", marks=pytest.mark.alone),
]


@pytest.mark.parametrize("prefix", _PREFIXES)
def test_sibling_in_namespaces(prefix: list[str]) -> None:
    if "--map-root-user" in prefix:
        need_mounted_root()
    with Workload.start("counter", prefix=prefix) as workload:
        workload.wait_ready()
        began = time.monotonic()
        workload.dump()
        workload.restore(options=["--restore-sibling"])
        took_s = time.monotonic() - began
        offsets = Path(f"/proc/{workload.pid}/timens_offsets").read_text(encoding="ascii").split()
        if "--time" in prefix:
            # The clock stood still while it was asleep.
            assert 4900 < int(offsets[1]) <= 5000
        elif took_s < timens.STALL_S:
            assert offsets[1] == "0"
        workload.expect_pass()


def test_sibling() -> None:
    with Workload.start("vectors") as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore(options=["--restore-sibling"])
        workload.expect_pass()
