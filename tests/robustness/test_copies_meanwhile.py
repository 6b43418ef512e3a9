"""Copies restored all the time from one place, while it is checkpointed into again and again: each is of one moment.

The program runs apart at once if its pages are of another moment than its registers.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, time_limit_s
from harness.rounds import rounds
from harness.workload import Workload
from torpor.cli import torpor
from torpor.engine import jobs

pytestmark = pytest.mark.root

N_COPIES = rounds(5, 200)


def _end(pid: int) -> None:
    """It goes on as it was, and ends well."""
    with ProcessWatch(pid) as copy:
        copy.signal(signal.SIGTERM)
        assert copy.wait_ended(time_limit_s(20))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _restore(kind: str, place: Path) -> int:
    if kind == "criu":
        return engine.restore(place, options=["--external", "mnt[]"])
    assert torpor.main(["restore", str(place), "--name", "copy"]) == 0
    return jobs.find("copy").pid


@pytest.mark.parametrize("kind", ["torpor", "criu"])
def test_each_is_of_one_moment(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "set"
    place.mkdir()
    with Workload.start_in_job("pulse") as pulse:
        pulse.wait_ready()
        monkeypatch.setenv("TORPOR_STATE", str(pulse.base / "state"))
        line = {
            "torpor": [sys.executable, "-m", "torpor.cli.torpor", "checkpoint", "workload", "-y", "-o", str(place)],
            "criu": [*engine.command(), "dump", "-t", str(pulse.pid), "-D", str(place), "-o", "dump.log"],
        }[kind]
        command = shlex.join([*line, "--leave-running"])
        subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, check=True)
        go_on = tmp_path / "go-on"
        go_on.touch()
        loop = f"n=0; while [ -e {go_on} ]; do {command} || exit 1; n=$((n + 1)); done; echo $n"
        with subprocess.Popen(["sh", "-c", loop], stdout=subprocess.PIPE, text=True) as checkpoints:
            try:
                for _ in range(N_COPIES):
                    _end(_restore(kind, place))
            finally:
                go_on.unlink()
                said = checkpoints.communicate()[0]
        assert checkpoints.returncode == 0, said
        assert not [name for name in (*os.listdir(tmp_path), *os.listdir(place)) if name.startswith(".")]
        pulse.status_file.unlink()
        pulse.expect_pass()
        print(f"{N_COPIES} copies, {said.split()[-1]} checkpoints meanwhile")
