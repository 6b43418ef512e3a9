"""Either side of a migration is killed, or the link between them is cut, at every word that they say: there is one of
the job, on one host or asleep in its images on the source, and it goes on where it was.
"""

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import relay
from harness.events import IN_MODIFY, FileWatch, ProcessWatch, become_subreaper, time_limit_s
from harness.hosts import Host, host
from harness.rounds import rounds
from torpor.engine import jobs

pytestmark = pytest.mark.root
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
_COUNTER = "n = 0\nimport time\nwhile True:\n    print(n, flush=True)\n    n += 1\n    time.sleep(0.01)"
VICTIMS = ("source", "destination", "link")
_ALL = (*VICTIMS, "both")
MESSAGES = ("hello", "offer", "accept", "connect", "images", "ready", "go", "runs")
SEED = 20261128
#: The hand-over in CI, and one instant while images are under way; everything, many times, by hand.
_IN_CI = [(message, victim, delay) for message in ("ready", "go", "runs") for victim in VICTIMS for delay in (0.0,)]
_IN_CI += [("images", victim, 0.1) for victim in VICTIMS]
_IN_CI += [("go", "both", -0.0001)]


def _cases() -> list[tuple[str, str, float]]:
    n_cases = rounds(len(_IN_CI), 500)
    rng = random.Random(SEED)
    more = [
        (rng.choice(MESSAGES), rng.choice(_ALL), rng.choice((-1, 1)) * rng.choice((0.0001, rng.uniform(0, 0.1))))
        for _ in range(n_cases - len(_IN_CI))
    ]
    return _IN_CI + more


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    with host(tmp_path, "there") as made:
        yield made
    for job in jobs.list_jobs():
        if job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


def _numbers(log: Path) -> list[int]:
    # Its log begins anew where it goes: the end of a line that was begun in the other one comes first.
    return [int(line) for line in log.read_text().split("\n")[:-1] if line]


def _wait_for_more(log: Path, n_lines: int) -> list[int]:
    """The numbers in *log* once there are so many more."""
    with FileWatch(log, IN_MODIFY) as changes:
        n_wanted = len(_numbers(log)) + n_lines
        while len(found := _numbers(log)) < n_wanted:
            assert select.select((changes,), (), (), time_limit_s(20))[0], f"{log} does not grow"
            changes.drain()
    return found


def test_one_of_it_lives_whoever_dies(there: Host, tmp_path: Path) -> None:
    for message, victim, delay in _cases():
        case = f"{victim} at {message!r} {delay:+.4f} s"
        _start(there)
        code = _migrate(there, tmp_path, message, victim, delay)
        print(f"{case}: exit code {code}, it is {_judge(there, case, code)}")


#: Checks all of its memory, a little at each step.
_CHECKER = """
import time
data, n = bytes(range(256)) * (32 << 10), 0
while True:
    assert data[n * 4096 * 7 % len(data) :][:256] == bytes(range(256))
    print(n, flush=True)
    n += 1
    time.sleep(0.002)
"""
#: Until "go" anybody's death leaves it here; from then on the source's, whose memory it needs, is that of both.
_WHILE_MEMORY_FOLLOWS = [
    ("ready", "source"),
    ("ready", "link"),
    ("go", "link"),
    ("runs", "link"),
    ("runs", "destination"),
]


@pytest.mark.parametrize(("message", "victim"), _WHILE_MEMORY_FOLLOWS)
def test_one_of_it_lives_when_memory_follows(message: str, victim: str, there: Host, tmp_path: Path) -> None:
    jobs.start([sys.executable, "-S", "-c", _CHECKER], "counter")
    _start(there)
    case = f"{victim} at {message!r}, while memory follows"
    # Before the other side hears that all is ready: its answer is "go".
    code = _migrate(there, tmp_path, message, victim, -1e-9 if message == "ready" else 0.0, "now")
    print(f"{case}: exit code {code}, it is {_judge(there, case, code)}")


def test_it_never_runs_again_at_a_source_that_has_said_go(there: Host, tmp_path: Path) -> None:
    jobs.start([sys.executable, "-S", "-c", _CHECKER], "counter")
    _start(there)
    assert _migrate(there, tmp_path, "runs", "source", 0.0, "now", ends=False) == -signal.SIGKILL
    assert {job.name: job.status for job in jobs.list_jobs()}.get("counter") != jobs.RUNNING


def _start(there: Host) -> None:
    """The job runs here, and nowhere else."""
    if "counter" in there.jobs():
        there.run("kill", "--signal", "KILL", "--remove", "counter")
    known = {job.name: job for job in jobs.list_jobs()}.get("counter")
    if known is None or known.status != jobs.RUNNING:
        if known is not None:
            jobs.remove(known)
        jobs.start([sys.executable, "-S", "-c", _COUNTER], "counter")
    _wait_for_more(jobs.find("counter").log, 1)


def _migrate(
    there: Host, base: Path, message: str, victim: str, delay: float, post_copy: str = "never", *, ends: bool = True
) -> int:
    """Try to, with that harm; how the command ended.  If all of it *ends*, nobody is at work any more then."""
    rsh = base / "harm"
    rsh.write_text(f'#!/bin/sh\nexec {sys.executable} {relay.__file__} {message} {delay} {victim} {there.rsh} "$@"\n')
    rsh.chmod(0o755)
    line = [*TORPOR, "migrate", "counter", "there", "--rsh", str(rsh), "--remote-torpor", str(there.torpor), "-y"]
    line += ["--post-copy", post_copy]
    with open(base / "said", "w+b") as said:
        code = subprocess.run(
            line, stdin=-3, stdout=said, stderr=said, timeout=time_limit_s(60), check=False
        ).returncode
    for pid in _receivers(there) if ends else ():
        try:
            watch = ProcessWatch(pid)
        except ProcessLookupError:
            continue
        assert watch.wait_ended(time_limit_s(20)), "the destination goes on for ever"
        watch.close()
    return code


def _receivers(there: Host) -> list[int]:
    """Those at work there; a job's watcher, which is a fork of one, has a session of its own."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                mine = os.fsencode(there.state) in Path(f"/proc/{entry}/environ").read_bytes()
                mine = mine and os.getsid(int(entry)) == os.getsid(0)
            except OSError:
                continue
            if mine and b"receive" in words:
                found.append(int(entry))
    return found


def _judge(there: Host, case: str, code: int) -> str:
    """Where it lives, once it is clear that it does, and that it does so once."""
    here = {job.name: job.status for job in jobs.list_jobs()}.get("counter", "")
    other = there.jobs().get("counter", "")
    states = f"{case}: here {here!r}, there {other!r}, exit code {code}"
    assert (here == jobs.RUNNING) + (other == jobs.RUNNING) <= 1, states
    if other == jobs.RUNNING:
        log = there.state / "jobs/counter/log"
    elif here == jobs.CHECKPOINTED:
        # Nobody knew, and so nothing was done: now somebody does.
        assert code in (4, -9), states
        subprocess.run([*TORPOR, "restore", "counter"], check=True, stdout=subprocess.DEVNULL)
        log = jobs.find("counter").log
    else:
        assert here == jobs.RUNNING, states
        log = jobs.find("counter").log
    found = _wait_for_more(log, 2)
    assert found == list(range(found[0], found[0] + len(found))), f"{states}: {found[:3]} ... {found[-3:]}"
    return "there" if other == jobs.RUNNING else "here" if here == jobs.RUNNING else "asleep here"
