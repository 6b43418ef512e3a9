import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.engine import EngineError
from harness.workload import Workload

pytestmark = pytest.mark.root


HAS_SME = " sme " in Path("/proc/cpuinfo").read_text()
#: What only these machines have.
MACHINES: dict[str, tuple[tuple[str, str], ...]] = {
    "x86_64": (("ldt", r"local descriptor table \(modify_ldt"),),
    "aarch64": (
        ("tags of addresses", r"uses tags of addresses \(PR_SET_TAGGED_ADDR_CTRL\)"),
        ("tagged memory", r"has memory with tags \(MTE\) at"),
        ("short vectors", "uses vectors of a length that it has chosen"),
        *((("array", "uses SME's array"), ("streaming", "uses SME's streaming mode")) if HAS_SME else ()),
    ),
}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("io_uring", "fd 3 of .*io_uring keeps"),
        ("userfaultfd", "page faults"),
        ("/dev/fuse", "device 10:229 "),
        ("leaderless", "the main thread has exited"),
        *MACHINES.get(os.uname().machine, ()),
    ],
)
def test_it_is_refused_by_name_and_runs_on(what: str, said: str) -> None:
    with Workload.start("uncarriable", [what]) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match=said):
            workload.dump()
        workload.expect_pass()


def test_what_only_may_be_lost_is_told() -> None:
    """F_NOTIFY: the kernel tells whom it signals, not of what."""
    lost = "signals of changes in / (F_NOTIFY), if any were asked for, are lost"
    with Workload.start("uncarriable", ["dnotify"]) as workload:
        workload.wait_ready()
        check = [sys.executable, "-m", "torpor.cli.torpor", "check", str(workload.pid)]
        assert f"will be lost: fd 3 of pid {workload.pid} (uncarriable): {lost}" in subprocess.check_output(
            check, text=True
        )
        workload.dump()
        assert lost in (workload.images / "dump.log").read_text()
        workload.restore()
        workload.expect_pass()
