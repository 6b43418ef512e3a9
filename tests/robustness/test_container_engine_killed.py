"""SIGKILL of `criu` at random instants of a container's checkpoint and restore: the container runs, or can be restored.

Nothing is left behind either: no traced or frozen process, no mount, no control group, no rule of a packet filter.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.instants import Instants
from harness.rounds import iter_rounds, rounds
from harness.runc import COUNTER, Container
from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat

# Whether both ends are met depends on how long the work takes, and others make that any length.
pytestmark = [
    pytest.mark.root, pytest.mark.real, pytest.mark.slow, pytest.mark.alone, pytest.mark.usefixtures("own_network"),
]  # fmt: skip
_N_KILLS = rounds(12, 100)


def _engine_of(runc: int) -> ProcessWatch | None:
    """The `criu` that works for a runc, the second (the first tells its version); None once runc has ended."""
    asked = _next_engine(runc)
    if asked is None:
        return None
    with asked:
        asked.wait_ended(time_limit_s(60))
        return _next_engine(runc)


def _next_engine(runc: int) -> ProcessWatch | None:
    with_runc = ProcessWatch(runc)
    children = Path(f"/proc/{runc}/task")
    try:
        while not with_runc.has_ended():
            for pid in [pid for each in children.iterdir() for pid in (each / "children").read_text().split()]:
                with suppress(FileNotFoundError, ProcessLookupError):
                    if "swrk" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                        return ProcessWatch(int(pid))
    except (FileNotFoundError, ProcessLookupError):
        return None
    finally:
        with_runc.close()
    return None


def _kill_after(watch: ProcessWatch, delay_s: float) -> bool:
    """Kill it after a while; False if it has ended before."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    if poll.poll(delay_s * 1000):
        return False
    return watch.signal(signal.SIGKILL)


def _left(container: Container) -> dict[str, int]:
    """What must be as many afterwards as before; others mount and unmount here as well, in places of their own."""
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {
        "mounts": Path("/proc/self/mountinfo").read_text().count(container.name),
        "tables": rules.count("CRIU"),
    }


def _traced(container: Container) -> list[str]:
    """Processes of the container that somebody traces, or that do not run."""
    found = []
    for pid in (container.pid,):
        status = Path(f"/proc/{pid}/status").read_text()
        if "TracerPid:\t0" not in status or "\nState:\tT" in status:
            found.append(status)
    return found


def _whole_s(container: Container, words: list[str]) -> float:
    """How long the engine works for such a command of runc."""
    runc = container.start_command(*words, container.name)
    engine, began = _engine_of(runc.pid), time.monotonic()
    assert engine is not None
    assert engine.wait_ended(time_limit_s(60))
    engine.close()
    took_s = time.monotonic() - began
    assert runc.wait(time_limit_s(60)) == 0
    return took_s


def _run_and_kill(container: Container, words: list[str], instants: Instants) -> bool:
    """Run runc and kill its engine at some instant; whether it was killed."""
    runc = container.start_command(*words, container.name)
    engine = _engine_of(runc.pid)
    killed = False
    if engine is not None:
        killed = _kill_after(engine, instants.draw())
        engine.close()
    runc.wait(time_limit_s(60))
    return killed


def test_killed_while_it_checkpoints() -> None:
    outcomes = {"killed": 0, "runs": 0, "restored": 0}
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        before = _left(container)
        container.wait_counting()
        words = ["checkpoint", "--image-path", str(container.images), "--work-path", str(container.base)]
        instants = Instants(20260101, _whole_s(container, words))
        container.restore()
        for _ in range(_N_KILLS):
            seen = container.wait_counting()
            # What a killed engine has left there goes by the next run, and what it has begun is not a checkpoint.
            (container.images / "inventory.img").unlink(missing_ok=True)
            outcomes["killed"] += (killed := _run_and_kill(container, words, instants))
            instants.learn(finished=not killed)
            if container.status() == "running":
                outcomes["runs"] += 1
                assert not _traced(container)
            else:
                container.runc("delete", "--force", container.name, check=False)
                container.restore()
                outcomes["restored"] += 1
            assert container.wait_counting() > seen, outcomes
        container.runc(*words, container.name)
        assert not [path for path in container.images.iterdir() if path.name.startswith(".torpor-")]
        assert _left(container) == before
    print(outcomes)
    assert outcomes["runs"] and outcomes["restored"] and outcomes["killed"] > _N_KILLS // 3, outcomes


def _in_groups_of(container: Container) -> list[int]:
    """The processes in its control groups that are alive."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            text = Path(f"/proc/{name}/cgroup").read_text() if name.isdigit() else ""
            if f"/{container.name}\n" in text and read_stat(Pid(int(name))).state not in "ZX":
                found.append(int(name))
    return found


#: The engine, which dies when the container runs and runc has not been told.
_DIES_BEFORE_IT_ANSWERS = """
import os, signal, sys
from torpor.cli.criu.main import main
from torpor.rpc.service import _Request
_Request._answer = lambda self, response: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main())
"""


def test_killed_before_it_answers() -> None:
    """runc knows nothing of the container then, and would start a second one beside it."""
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        container.wait_counting()
        container.checkpoint()
        criu, program = container.base / "programs/criu", container.base / "dies.py"
        program.write_text(_DIES_BEFORE_IT_ANSWERS)
        as_it_was = criu.read_text()
        # Asked for its version it answers.
        criu.write_text(f'#!/bin/sh\n[ -e {container.base}/asked ] && exec {sys.executable} {program} "$@"\n'
                        f'touch {container.base}/asked\n{as_it_was.partition(chr(10))[2]}')  # fmt: skip
        assert container.runc(*container.restore_words(), container.name, check=False).returncode
        assert re.search(r"Restored \d+ processes", (container.base / "restore.log").read_text())
        criu.write_text(as_it_was)
        deadline = time.monotonic() + time_limit_s(10)
        while (left := _in_groups_of(container)) and time.monotonic() < deadline:
            pass
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, "it runs on"
        container.runc("delete", "--force", container.name, check=False)
        container.restore()
        container.wait_counting()


def test_killed_while_it_restores() -> None:
    met: Counter[str] = Counter()
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        before = _left(container)
        container.wait_counting()
        container.checkpoint()
        instants = Instants(20260102, _whole_s(container, container.restore_words()))
        for _ in iter_rounds(_N_KILLS, met, "killed"):
            seen = container.wait_counting()
            container.checkpoint()
            killed = _run_and_kill(container, container.restore_words(), instants)
            instants.learn(finished=not killed)
            if container.status() != "running":
                met["killed"] += killed
                container.runc("delete", "--force", container.name, check=False)
                container.restore()
            assert container.wait_counting() > seen
            assert not _traced(container)
        assert _left(container) == before
    print(f"{met['killed']} killed before they let it go")
    assert met["killed"], "the instants are badly chosen"
