"""Signals aimed at the end of a dump, when it kills the tree: all of it dies or none, and the exit code tells which.

What was killed is restored and serves the next round, which shows that the images are whole.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import cgroups, engine
from harness.events import ProcessWatch, time_limit_s
from harness.processes import own_children, wait_alone, watch_tree
from harness.rounds import rounds
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import is_dying, read_threads

pytestmark = pytest.mark.root

SEED = 20240214
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
#: After inventory.img has appeared.
LONGEST_S = 0.008

SHAPES = {
    "processes": ("wide", "30"),
    "threads": ("wide", "0", "60"),
    "chain": ("deep", "30"),
    "stopped": ("wide", "15", "1", "10", "5"),
    #: In a pid namespace of their own: whose first process dies takes the others along.
    "namespace": ("wide", "30"),
}


def _strike(workload: Workload, number: int, delay_s: float, options: Sequence[str]) -> int:
    """Dump, and send the dumper a signal *delay_s* after the last of the images has appeared; its exit code."""
    inventory = workload.images / "inventory.img"
    inventory.unlink(missing_ok=True)
    line = [*engine.command(), "dump", "-t", str(workload.pid), "-D", str(workload.images), "-o", "dump.log", *options]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as dumper:
        deadline = time.monotonic() + time_limit_s(30)
        # The instant is what is tested; an event would tell of it too late.
        while not inventory.exists() and dumper.poll() is None:
            assert time.monotonic() < deadline, "no inventory"
        end = time.monotonic() + delay_s
        while time.monotonic() < end:
            pass
        dumper.send_signal(number)
        return dumper.wait(time_limit_s(30))


def _n_alive(watches: Sequence[ProcessWatch]) -> int:
    return sum(not watch.has_ended() and not is_dying(Pid(watch.pid)) for watch in watches)


def _check_free(watches: Sequence[ProcessWatch]) -> None:
    for watch in watches:
        for tid in [] if watch.has_ended() else read_threads(Pid(watch.pid)):
            status = read_status(Pid(watch.pid), tid)
            assert not status.tracer, f"{tid} is traced by {status.tracer}"
            assert status.state in "RSDT", f"{tid} is in state {status.state}"


def _settle(watches: Sequence[ProcessWatch], known: set[int], expected: int) -> int:
    """How many are alive, once nobody is at work on them any more; *expected* are if the dump has failed."""
    # Whoever is going to kill them is ours if the dumper is dead.
    wait_alone(known | {watch.pid for watch in watches})
    deadline = time.monotonic() + time_limit_s(10)
    while 0 < (n := _n_alive(watches)) < expected and time.monotonic() < deadline:
        time.sleep(0.001)
    if not n:
        assert all(watch.wait_ended(time_limit_s(10)) for watch in watches), "killed, and there"
    return n


@contextmanager
def _watched(workload: Workload) -> Iterator[list[ProcessWatch]]:
    watches = watch_tree(workload.mark, (workload.pid,))
    try:
        yield [watch for watch in watches if not watch.has_ended()]
    finally:
        for watch in watches:
            watch.close()


def _round(workload: Workload, number: int, delay_s: float, options: Sequence[str] = ()) -> str:
    """What it came to: ``alive``, ``dead`` (and restored), ``lost`` where somebody else has one of the pids by now."""
    with _watched(workload) as alive:
        known = own_children()
        code = _strike(workload, number, delay_s, options)
        n = _settle(alive, known, len(alive))
        what = (
            f"{signal.Signals(number).name} after {delay_s * 1000:.2f} ms: exit code {code}, {n} of {len(alive)} alive"
        )
        assert n in (0, len(alive)), what
        if code >= 0:
            assert (n == 0) == (code == 0), what
        if n:
            _check_free(alive)
            return "alive"
        for watch in alive:
            watch.reap()
    workload.reap()
    try:
        workload.restore()
    except engine.EngineError as error:
        # The machine is busy, and pids are few.  Who had it may be gone when he is to be named.
        if " is taken" not in error.log:
            raise
        return "lost"
    return "dead"


@pytest.mark.parametrize("shape", SHAPES)
def test_all_or_none(shape: str) -> None:
    rng = random.Random(SEED)
    met: Counter[str] = Counter()
    left = rounds(6, 300) if shape == "processes" else rounds(3, 100)
    while left:
        start = Workload.start_in_job if shape == "namespace" else Workload.start
        with start("brood", SHAPES[shape]) as workload:
            workload.wait_ready()
            last = ""
            while left and last != "lost":
                last = _round(workload, SIGNALS[left % len(SIGNALS)], rng.uniform(0, LONGEST_S))
                met[last] += 1
                left -= 1
            if last != "lost":
                workload.expect_pass()
    print(dict(met))


@pytest.mark.parametrize("hierarchy", ["freezer", ""], ids=["v1", "v2"])
@pytest.mark.parametrize("frozen", [False, True], ids=["thawed", "frozen"])
def test_with_a_freezer(hierarchy: str, frozen: bool) -> None:
    with cgroups.group(hierarchy) as path, Workload.start("brood", ("wide", "12"), prefix=cgroups.entering(path)) as it:
        it.wait_ready()
        name, words = ("freezer.state", ("THAWED", "FROZEN")) if hierarchy else ("cgroup.freeze", ("0", "1"))
        options = ["--freeze-cgroup", str(path), "--manage-cgroups=none"]
        rng = random.Random(SEED)
        for at in range(rounds(3, 60)):
            (path / name).write_text(words[frozen])
            try:
                met = _round(it, SIGNALS[at % len(SIGNALS)], rng.uniform(0, LONGEST_S), options)
            finally:
                state = (path / name).read_text().strip()
                (path / name).write_text(words[0])
            if met == "lost":
                return
            assert state == words[frozen] if met == "alive" else state == words[0], (met, state)
            for pid in _pids(it):
                (path / "cgroup.procs").write_text(str(pid))
        it.expect_pass()


def _pids(workload: Workload) -> list[int]:
    with _watched(workload) as alive:
        return [watch.pid for watch in alive]


def test_an_error_after_the_end_is_a_warning(tmp_path: Path) -> None:
    """The statistics cannot be written: the target is dead and the images are good."""
    (tmp_path / "stats-dump").mkdir()
    with Workload.start("counter") as workload:
        workload.wait_ready()
        with ProcessWatch(workload.pid) as watch:
            line = [*engine.command(), "dump", "-t", str(workload.pid), "-D", str(workload.images), "-W", str(tmp_path)]
            done = subprocess.run([*line, "--display-stats"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "statistics" in done.stderr
            assert watch.wait_ended(time_limit_s(10))
        workload.reap()
        workload.restore()
        workload.expect_pass()
