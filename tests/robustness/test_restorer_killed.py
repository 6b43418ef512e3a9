"""kill -9 of the restorer at 100 random instants: afterwards either nothing is there, or the whole tree runs.

The restores run in processes forked from this one, so that the instants fall into restores and not into the start of
an interpreter.
"""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.processes import find_tree, reap_adopted
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.engine.restore.run import restore
from torpor.images import kinds
from torpor.images.store import load_all
from torpor.images.stores.directory import DirStore
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_children

pytestmark = pytest.mark.root

N_KILLS = 100
SEED = 20240215
LIMIT_S = 10


def fork_restorer(directory: Path) -> int:
    restorer = os.fork()
    if restorer:
        return restorer
    code = 1
    try:
        restore(directory)
        code = 0
    finally:
        os._exit(code)


def reap() -> None:
    """This process is a subreaper: what the dead restorer leaves is ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def is_there(pid: int) -> bool:
    with suppress(OSError):
        return read_stat(Pid(pid)).state not in "ZX"
    return False


def runs(pid: int) -> bool:
    with suppress(OSError):
        status = read_status(Pid(pid))
        return status.tracer == 0 and status.state in "RS"
    return False


_others: set[int] = set()


def wait_all_or_nothing(pids: set[int]) -> bool:
    """Whether all of *pids* run; the alternative is that none is there and no child of ours is left."""
    deadline = time.monotonic() + time_limit_s(LIMIT_S)
    while True:
        reap()
        there = {pid for pid in pids if is_there(pid)}
        if not there and not set(read_children(Pid(os.getpid()))) - _others:
            return False
        if there == pids and all(runs(pid) for pid in pids):
            return True
        assert time.monotonic() < deadline, f"{len(there)} of {len(pids)} are left: {there}"


def end_all(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + time_limit_s(LIMIT_S)
    while wait_all_or_nothing(pids):
        assert time.monotonic() < deadline, "they do not die of SIGKILL"


def test_restorer_killed() -> None:
    rng = random.Random(SEED)
    with Workload.start("family") as workload:
        workload.wait_ready()
        workload.dump()
        with DirStore(workload.images, "r") as store:
            pids = {entry.pid for entry in load_all(store, kinds.PSTREE)}
        assert len(pids) > 5
        # What other tests have left to us, which nothing here is to be blamed for.
        reap_adopted()
        _others.update(read_children(Pid(os.getpid())))

        start = time.monotonic()
        restorer = fork_restorer(workload.images)
        assert os.waitpid(restorer, 0) == (restorer, 0)
        whole_s = time.monotonic() - start
        assert wait_all_or_nothing(pids)
        end_all(pids)

        n_finished = 0
        for _ in range(N_KILLS):
            restorer = fork_restorer(workload.images)
            # The instant is what is tested; nothing is waited for.
            time.sleep(rng.uniform(0, 1.1 * whole_s))
            os.kill(restorer, signal.SIGKILL)
            _, status = os.waitpid(restorer, 0)
            assert os.WIFSIGNALED(status) or status == 0
            if wait_all_or_nothing(pids):
                n_finished += 1
                end_all(pids)
        assert find_tree(workload.mark) == []
        print(f"a restore took {whole_s:.3f} s; {n_finished} of {N_KILLS} were finished before they were killed")
        # The images are as good as before.
        workload.restore()
        workload.expect_pass()
