"""Nothing is imported while a tree is stopped: what a dump needs there, the checks before it have loaded."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.flavours import Flavour, start

pytestmark = pytest.mark.root

#: What is imported all the same: the module, and why.
EXCEPTIONS: dict[str, str] = {
    "torpor.tracee.vigil": "whether a process is stopped is known when it has been seized",
    "torpor.objects.files.mqueue": "a message queue is told from a file by its descriptor only",
    "torpor.objects.files.mqueue_data": "the same",
    "torpor.objects.files.mqueue_notify": "the same",
}

#: Dumps, and prints each module that is imported, with the phase, while the tree is stopped.  What it forks is another.
PROGRAM = """
import os, sys
from torpor.base.records import replace
from torpor.engine.dump import run
from torpor.engine.dump.phases import FROZEN
from torpor.engine.options import DumpOptions
from torpor.objects.policy import FilePolicy, NetworkPolicy, Policies, TerminalPolicy

current, found, main = "", {}, os.getpid()

def watched(phase):
    def go(session):
        global current
        current = phase.name if phase.stage == FROZEN else ""
        phase.run(session)
        current = ""
    return replace(phase, run=go)

def told(event, words):
    if event == "import" and current and os.getpid() == main:
        found[f"{current}: {words[0]}"] = True

run.DUMP = tuple(watched(phase) for phase in run.DUMP)
run.PRE_DUMP = tuple(watched(phase) for phase in run.PRE_DUMP)
sys.addaudithook(told)
policies = Policies(
    files=FilePolicy(external_pipes=True, file_locks=True, link_remap=True),
    network=NetworkPolicy(tcp_established=True),
    terminals=TerminalPolicy(shell_job=True),
)
options = DumpOptions(policies=policies, **{word: True for word in sys.argv[4:]})
getattr(run, sys.argv[1])(int(sys.argv[2]), sys.argv[3], options)
print(*found, sep="\\n")
"""


def imported(what: str, pid: int, directory: Path, options: Sequence[str]) -> list[str]:
    line = [sys.executable, "-c", PROGRAM, what, str(pid), str(directory), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in done.stdout.split("\n") if each and each.partition(": ")[2] not in EXCEPTIONS]


@pytest.mark.parametrize("options", [(), ("leave_running",), ("leave_stopped",)], ids=["killed", "running", "stopped"])
@pytest.mark.parametrize("name", ["family", "tcp_pair"])
def test_whatever_becomes_of_the_tree(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    look(name, options, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "epoll", "eventfd", "file_locks", "ghost_files", "inotify", "memfd", "mqueue", "pipe_contents", "posix_timers",
        "pty", "seccomp_filters", "shared_anonymous", "stopped", "threads", "udp", "unix_names", "unix_pairs",
    ],
)  # fmt: skip
def test_whatever_it_has(name: str, tmp_path: Path) -> None:
    look(name, (), tmp_path)


@pytest.mark.parametrize("name", ["family", "shared_anonymous"])
def test_while_its_memory_is_copied(name: str, tmp_path: Path) -> None:
    look(name, (), tmp_path, "pre_dump")


@pytest.mark.parametrize("flavour", [Flavour.JOB, Flavour.FRESH])
def test_in_namespaces_of_its_own(flavour: Flavour, tmp_path: Path) -> None:
    look("family", (), tmp_path, flavour=flavour)


def look(
    name: str, options: Sequence[str], directory: Path, what: str = "dump", flavour: Flavour = Flavour.HOST
) -> None:
    with start(flavour, name) as workload:
        workload.wait_ready()
        found = imported(what, workload.pid, directory, options)
        assert not found, "\n".join(found)
