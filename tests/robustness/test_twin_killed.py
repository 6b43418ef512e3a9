"""The dumper dies while a task has a twin: the task goes on as it was, alone and with its own descriptors."""

import os
import signal
import subprocess
import sys

import pytest

from harness.events import time_limit_s
from harness.workload import Workload

pytestmark = pytest.mark.root

#: Where it dies: a function of torpor's that is replaced by death, or that is followed by it.
_DIE = """
import os, sys
from torpor.tracee import remote, thread, twin
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel import ptrace
from torpor.objects.task import landlock

# A task that may look at us needs no twin.
landlock.are_we_free = lambda: False

def die(*words, **named):
    os.kill(os.getpid(), 9)

def then_die(function):
    def call(*words, **named):
        result = function(*words, **named)
        die()
        return result
    return call

def die_in_the_midst(child):
    # Its parent kills it after the first calls of its batch.
    for _ in range(2 * 3):
        ptrace.cont_to_syscall(child.tid)
        os.waitpid(child.tid, 0x40000000)
    os.kill(child.tid, 9)
    die()

use, where = twin._use, sys.argv[1]
if where == "midst":
    def use_in_part(child, *words):
        thread.Thread.cont = die_in_the_midst
        use(child, *words)
    twin._use = use_in_part
elif where == "born":
    twin._use = die
elif where == "used":
    twin._use = then_die(use)
else:
    def use_and_die(child, *words):
        owner, name = {"started": (remote.Runner, "start"), "running": (thread.Thread, "cont"),
                       "stopped": (thread.Thread, "wait_interrupted")}[where]
        setattr(owner, name, then_die(getattr(owner, name)))
        use(child, *words)
    twin._use = use_and_die
dump(int(sys.argv[2]), sys.argv[3], DumpOptions(leave_running=True))
"""


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *(("counter", where) for where in ("born", "stopped", "started", "running", "midst", "used")),
        ("threads", "born"),
        ("seccomp_filters", "born"),
        ("seccomp_filters", "running"),
    ],
)
def test_the_task_goes_on_alone(name: str, where: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        pid = workload.pid
        before, tasks = sorted(os.listdir(f"/proc/{pid}/fd")), sorted(os.listdir(f"/proc/{pid}/task"))
        line = [sys.executable, "-c", _DIE, where, str(pid), str(workload.images)]
        done = subprocess.run(line, timeout=time_limit_s(60), check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        workload.dump()
        workload.restore()
        pid = workload.pid
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == before
        assert len(os.listdir(f"/proc/{pid}/task")) == len(tasks)
        assert workload.processes() == [pid]
        workload.expect_pass()
