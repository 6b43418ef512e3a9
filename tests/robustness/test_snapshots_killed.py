"""kill -9 of the dumper while there are snapshots: the target goes on, and nothing of them is left.

At random instants, and at those at which something has just been begun and not been noted yet.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.processes import kill_tree
from harness.rounds import rounds
from harness.workload import Workload
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_children, read_threads

pytestmark = pytest.mark.root

N_KILLS = rounds(12, 300)
SEED = 20261128
LONGEST_S = 0.4
OPTIONS = DumpOptions(leave_running=True, snapshot="always")

#: Where it dies: before or after a function of torpor's.
_DIE = """
import os, sys
from torpor.tracee import caretaker, snapshot, thread, twin
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions

us = os.getpid()

def die(*words, **named):
    if os.getpid() == us:
        os.kill(us, 9)
    return whole(*words, **named)  # a caretaker of ours

def then_die(function):
    def call(*words, **named):
        result = function(*words, **named)
        if os.getpid() == us:
            die()
        return result
    return call

Snapshot, where = snapshot.Snapshot, sys.argv[1]
if where == "born":
    snapshot._keep = die
elif where == "bound":
    bind = twin.trace
    def trace(task, options):
        bind(task, options)
        if options & 0x100000:
            die()
    twin.trace = trace
elif where == "told":
    caretaker.Caretaker.add = then_die(caretaker.Caretaker.add)
elif where == "kept":
    snapshot._keep = then_die(snapshot._keep)
elif where == "waited":
    whole, snapshot.wait_for = snapshot.wait_for, die
elif where == "reaped":
    snapshot.wait_for = then_die(snapshot.wait_for)
else:
    name, _, when = where.partition(" ")
    setattr(Snapshot, name, then_die(getattr(Snapshot, name)) if when else die)
dump(int(sys.argv[2]), sys.argv[3], DumpOptions(leave_running=True, snapshot="always"))
"""

POINTS = (
    "born", "bound", "told", "kept", "settle", "settle done", "kill", "kill done", "reap", "waited", "reaped",
    "reap done",
)  # fmt: skip


def check_alone(pid: int) -> None:
    """Nobody traces it, none of its threads is stopped or borrowed, and it has no child."""
    assert read_children(Pid(pid)) == []
    for tid in read_threads(Pid(pid)):
        status = read_status(Pid(pid), tid)
        assert status.tracer == 0, f"thread {tid} is traced by {status.tracer}"
        assert status.state in "RSD", f"thread {tid} is in state {status.state}"


def wait_alone(watch: ProcessWatch) -> None:
    deadline = time.monotonic() + time_limit_s(10)
    while True:
        assert not watch.has_ended(), "the target has died"
        try:
            return check_alone(watch.pid)
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def descriptors(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"))


def mappings(pid: int) -> list[tuple[int, int]]:
    return [(vma.start, vma.end) for vma in read_maps(Pid(pid)) if vma.name not in ("[stack]", "[heap]")]


def go_on(workload: Workload) -> None:
    """It can be dumped as ever, and what was dumped goes on."""
    workload.dump(leave_running=True, options=["--snapshot", "always"])
    kill_tree(workload.mark, ProcessWatch(workload.pid))
    workload.reap()
    workload.restore()
    workload.expect_pass()


@pytest.mark.parametrize("where", POINTS)
def test_at_an_instant(where: str, tmp_path: Path) -> None:
    with Workload.start("rewritten", ["8", "dontfork"]) as workload, ProcessWatch(workload.pid) as watch:
        workload.wait_ready()
        before, fds = mappings(workload.pid), descriptors(workload.pid)
        line = [sys.executable, "-c", _DIE, where, str(workload.pid), str(tmp_path)]
        done = subprocess.run(line, timeout=time_limit_s(60), check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        wait_alone(watch)
        assert descriptors(workload.pid) == fds
        dump(workload.pid, tmp_path, OPTIONS)
        assert mappings(workload.pid) == before
        go_on(workload)


def _dump_for_ever(pid: int, directory: Path) -> None:
    try:
        while True:
            dump(pid, directory, OPTIONS)
    except TorporError as error:
        os.write(2, f"{error.describe()}\n".encode())
    finally:
        os._exit(1)


def test_at_random(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with Workload.start("rewritten", ["16"]) as workload, ProcessWatch(workload.pid) as watch:
        workload.wait_ready()
        before, fds = mappings(workload.pid), descriptors(workload.pid)
        for _ in range(N_KILLS):
            dumper = os.fork()
            if not dumper:
                _dump_for_ever(workload.pid, tmp_path)
            # The instant is what is tested; nothing is waited for.
            time.sleep(rng.uniform(0, LONGEST_S))
            os.kill(dumper, signal.SIGKILL)
            _, status = os.waitpid(dumper, 0)
            assert os.WIFSIGNALED(status), f"the dumper ended by itself: {status:#x}"
            wait_alone(watch)
        dump(workload.pid, tmp_path, OPTIONS)
        check_alone(workload.pid)
        assert mappings(workload.pid) == before
        assert descriptors(workload.pid) == fds
        go_on(workload)
