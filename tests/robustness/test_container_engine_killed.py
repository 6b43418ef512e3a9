"""SIGKILL of `criu` at random instants of a container's checkpoint and restore: the container runs, or can be restored.

Nothing is left behind either: no traced or frozen process, no mount, no control group, no rule of a packet filter.
"""

import os
import random
import select
import subprocess
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.runc import COUNTER, Container

# The mounts of the host are counted, and the instants of the kills are chosen for an idle machine.
pytestmark = [
    pytest.mark.root, pytest.mark.real, pytest.mark.slow, pytest.mark.alone, pytest.mark.usefixtures("own_network"),
]  # fmt: skip
_N_KILLS = 25


def _engine_of(runc: int) -> ProcessWatch | None:
    """The `criu` that works for a runc; None once runc has ended without one."""
    with_runc = ProcessWatch(runc)
    try:
        while not with_runc.has_ended():
            children = Path(f"/proc/{runc}/task/{runc}/children")
            threads = children.parent.parent
            for thread in os.listdir(threads):
                for pid in (threads / thread / "children").read_text().split():
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
    import signal

    return watch.signal(signal.SIGKILL)


def _left() -> dict[str, int]:
    """What must be as many afterwards as before."""
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
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


def _run_and_kill(container: Container, words: list[str], longest_s: float, chance: random.Random) -> bool:
    """Run runc and kill its engine at some instant; whether it was killed."""
    runc = container.start_command(*words, container.name)
    engine = _engine_of(runc.pid)
    killed = False
    if engine is not None:
        killed = _kill_after(engine, chance.uniform(0, longest_s))
        engine.close()
    runc.wait(time_limit_s(60))
    return killed


def test_killed_while_it_checkpoints() -> None:
    chance = random.Random(20260101)
    outcomes = {"runs": 0, "restored": 0}
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        before = _left()
        for _ in range(_N_KILLS):
            seen = container.wait_counting()
            container.images.mkdir(exist_ok=True)
            for old in container.images.iterdir():
                old.unlink()
            words = ["checkpoint", "--image-path", str(container.images), "--work-path", str(container.base)]
            _run_and_kill(container, words, 0.15, chance)
            if container.status() == "running":
                outcomes["runs"] += 1
                assert not _traced(container)
            else:
                container.runc("delete", "--force", container.name, check=False)
                container.restore()
                outcomes["restored"] += 1
            assert container.wait_counting() > seen, outcomes
        assert _left() == before
    assert outcomes["runs"] and outcomes["restored"], f"the instants are badly chosen: {outcomes}"


def test_killed_while_it_restores() -> None:
    chance = random.Random(20260102)
    n_killed = 0
    with Container(["sh", "-c", COUNTER]) as container:
        container.run()
        before = _left()
        for _ in range(_N_KILLS):
            seen = container.wait_counting()
            container.checkpoint()
            killed = _run_and_kill(container, container.restore_words(), 0.2, chance)
            if container.status() != "running":
                n_killed += killed
                container.runc("delete", "--force", container.name, check=False)
                container.restore()
            assert container.wait_counting() > seen
            assert not _traced(container)
        assert _left() == before
    assert n_killed, "the instants are badly chosen"
