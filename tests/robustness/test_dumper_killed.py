"""kill -9 of the dumper at random instants: the target, which computes without a pause, is none the worse.

The dumps run one after the other in a process forked from this one, so that the instants fall into dumps and not into
the start of an interpreter.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.instants import Instants, Told
from harness.rounds import rounds
from harness.workload import Workload
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_threads

pytestmark = pytest.mark.root

N_KILLS = rounds(80, 200)
SEED = 20240214


def dump_for_ever(pid: int, directory: Path, told: Told) -> None:
    while True:
        dump(pid, directory, DumpOptions(leave_running=True))
        told.say()


def fork_dumper(pid: int, directory: Path, told: Told) -> int:
    dumper = os.fork()
    if dumper:
        return dumper
    try:
        dump_for_ever(pid, directory, told)
    except TorporError as error:
        os.write(2, f"{error.describe()}\n".encode())
    finally:
        os._exit(1)


def kill_at_random_instant(instants: Instants, pid: int, directory: Path, told: Told) -> None:
    dumper = fork_dumper(pid, directory, told)
    # The instant is what is tested; nothing is waited for.
    time.sleep(instants.draw())
    os.kill(dumper, signal.SIGKILL)
    _, status = os.waitpid(dumper, 0)
    assert os.WIFSIGNALED(status), f"the dumper ended by itself: {status:#x}"
    instants.learn(finished=told.take() > 1)


def check_free(pid: int) -> None:
    """Nobody traces a thread of *pid*, and none is stopped."""
    for tid in read_threads(Pid(pid)):
        status = read_status(Pid(pid), tid)
        assert status.tracer == 0, f"thread {tid} is traced by {status.tracer}"
        assert status.state in "RSD", f"thread {tid} is in state {status.state}"
        assert not status.blocked & 1 << (signal.SIGUSR1 - 1), f"thread {tid} has signals blocked by us"


def wait_free(watch: ProcessWatch) -> None:
    """The kernel lets tracees go as the dumper dies; a thread may still be on its way out of a batch."""
    deadline = time.monotonic() + time_limit_s(5)
    while True:
        assert not watch.has_ended(), "the target has died"
        try:
            return check_free(watch.pid)
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def addresses(pid: int) -> set[tuple[int, int]]:
    return {(vma.start, vma.end) for vma in read_maps(Pid(pid)) if vma.name not in ("[stack]", "[heap]")}


def test_dumper_killed(tmp_path: Path) -> None:
    n_left = 0
    with Workload.start("vectors") as workload, ProcessWatch(workload.pid) as watch, Told() as told:
        workload.wait_ready()
        before, began = addresses(workload.pid), time.monotonic()
        dump(workload.pid, tmp_path, DumpOptions(leave_running=True))
        instants = Instants(SEED, 2 * (time.monotonic() - began))
        for _ in range(N_KILLS):
            kill_at_random_instant(instants, workload.pid, tmp_path, told)
            wait_free(watch)
            n_left += addresses(workload.pid) != before
        # What the dead left is taken away by the next one who comes.
        dump(workload.pid, tmp_path, DumpOptions(leave_running=True))
        check_free(workload.pid)
        assert addresses(workload.pid) == before
        print(f"a mapping was left {n_left} times")
        workload.expect_pass()
