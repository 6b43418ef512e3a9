"""Two hosts at the ends of a cable, a job that moves from one to the other, and harm at any instant.

An end is killed, or all of the other host; the cable is pulled, or what is on it is lost, for a while or for good; a
disk fills up.  There is one of it each time, running on one host or asleep in its images on the source, and nothing of
it is lost.

With TORPOR_FULL=1 many cases (TORPOR_CASES=N: so many), and a table of what has come of them.
"""

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import network, relay
from harness.events import IN_MODIFY, FileWatch, ProcessWatch, become_subreaper, time_limit_s
from harness.hosts import Host, host, lay_cable
from harness.rounds import rounds
from torpor.engine import jobs

pytestmark = pytest.mark.root
SEED = 20261129
#: What is waited for 300 and 60 seconds otherwise.
_HASTY = """
import torpor.migrate.protocol as protocol, torpor.migrate.data as data
protocol.GO_WITHIN_S = 8.0
import torpor.migrate.postcopy as postcopy, torpor.migrate.source as source
postcopy.AGAIN_WITHIN_S, postcopy._NOBODY_WITHIN_S = 8.0, 3.0
source._RUNS_WITHIN_S, source.READY_WITHIN_S = 8.0, 8.0
"""
#: Checks some of what it has at each step, and each byte of it now and then; and writes there, all the time.
_COUNTER = """
import os, time
def say(line):
    while line:
        try:
            line = line[os.write(1, line) :]
        except OSError:
            time.sleep(0.05)  # the disk is full
chance = __import__("random").Random(1)
data = bytearray(chance.randbytes(12 << 20))
kept, n = bytes(data), 0
while True:
    at = n * 4096 * 7 % len(data)
    assert data[at : at + 65536] == kept[at : at + 65536], n
    assert n % 50 or data == kept, n
    data[at : at + 8] = n.to_bytes(8, "little")
    time.sleep(0.002)
    assert int.from_bytes(data[at : at + 8], "little") == n
    data[at : at + 8] = kept[at : at + 8]
    say(b"%d\\n" % n)
    n += 1
"""
MESSAGES = ("offer", "accept", "images", "taken", "pages", "ready", "go", "runs")
#: By what is done to whom.
HARMS = ("source", "destination", "host", "cut", "lost", "lost for a while", "full here", "full there")
WAYS = ("never", "auto", "now")
_IN_CI = [("runs", 0.05, "lost for a while", "now"), ("images", 0.3, "cut", "never")]


@dataclass
class Case:
    """When what is done, and what became of it."""

    message: str
    delay: float
    harm: str
    way: str
    came: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.harm} at {self.message!r} {self.delay:+.4f} s, post-copy {self.way}"


def _cases() -> list[Case]:
    rng = random.Random(int(os.environ.get("TORPOR_SEED", SEED)))
    n_cases = rounds(len(_IN_CI), int(os.environ.get("TORPOR_CASES", "500")))
    return [Case(*each) for each in _IN_CI] + [
        Case(
            rng.choice(MESSAGES), rng.choice((1, 1, -1)) * rng.choice((0.0001, rng.uniform(0, 0.6))),
            rng.choice(HARMS), rng.choice(WAYS),
        )
        for _ in range(n_cases - len(_IN_CI))
    ]  # fmt: skip


class World:
    """Both hosts, each with a small disk, and a cable."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._there = ExitStack()
        self.there = self._boot()

    def _boot(self) -> Host:
        made = self._there.enter_context(host(self.base, "there", main=_HASTY, network=True))
        self._write_harms(made)
        return made

    def mend(self) -> None:
        """All is as it should be, and nothing runs anywhere."""
        subprocess.run(["nft", "delete", "table", "inet", "harm"], stderr=subprocess.DEVNULL, check=False)
        (self.base / "harmed").unlink(missing_ok=True)
        for name in ("here", "there"):
            (self.base / name / "filler").unlink(missing_ok=True)
        if not os.path.exists(f"/proc/{self.there.pid}"):
            self._there.close()
            for place in (self.base / "there").iterdir():
                subprocess.run(["rm", "-rf", str(place)], check=True)
            self.there = self._boot()
        elif not os.path.exists("/sys/class/net/cable") or not self._has_cable():
            lay_cable(self.there)

    def _has_cable(self) -> bool:
        return subprocess.run(["ip", "link", "show", "cable"], capture_output=True, check=False).returncode == 0

    def _write_harms(self, there: Host) -> None:
        fill = "head -c 1G /dev/zero > {0}/filler 2>/dev/null; (sleep 4; rm -f {0}/filler) >/dev/null 2>&1 &"
        rules = "type filter hook {0} priority 0; {1} cable drop"
        chains = [
            f"chain {hook} {{ {rules.format(hook, way)}\n}}" for hook, way in (("input", "iif"), ("output", "oif"))
        ]
        lose = "nft -f - <<.\ntable inet harm {\n" + "\n".join(chains) + "\n}\n.\n"
        receivers = f"for pid in $({sys.executable} {__file__} {there.state}); do kill -KILL $pid; done"
        for name, script in {
            "destination": receivers,
            "host": f"kill -KILL {there.pid}",
            "cut": "ip link del cable",
            "lost": lose,
            "lost for a while": f"{lose}(sleep 2; nft delete table inet harm) >/dev/null 2>&1 &",
            "full here": fill.format(self.base / "here"),
            "full there": fill.format(there.state),
        }.items():
            path = self.base / name.replace(" ", "-")
            path.write_text(f"#!/bin/sh\ntouch {self.base}/harmed\n{script}\n")
            path.chmod(0o755)

    def migrate(self, case: Case) -> tuple[int, str]:
        """Try to, with that harm; how the command ended, and what it has said, once nobody is at work any more."""
        rsh, harm = self.base / "harm", "source" if case.harm == "source" else self.base / case.harm.replace(" ", "-")
        words = f"{case.message} {case.delay} {harm}"
        rsh.write_text(f'#!/bin/sh\nexec {sys.executable} {relay.__file__} {words} {self.there.rsh} "$@"\n')
        rsh.chmod(0o755)
        line = [str(self.there.torpor), "migrate", "counter", "there", "--rsh", str(rsh), "-y"]
        line += ["--remote-torpor", str(self.there.torpor), "--post-copy", case.way]
        # Some of it takes its time.
        line += ["--bandwidth", "300", "--downtime", "1ms" if case.way == "auto" else "100ms"]
        with open(self.base / "said", "w+") as said:
            code = subprocess.run(
                line, stdin=-3, stdout=said, stderr=said, timeout=time_limit_s(90), check=False
            ).returncode
            said.seek(0)
            told = said.read()
        for _ in range(20):
            for pid in _at_work(self.there.state):
                with suppress(ProcessLookupError):
                    watch = ProcessWatch(pid)
                    assert watch.wait_ended(time_limit_s(60)), f"{case}: {pid} is at work there for ever"
                    watch.close()
        return code, told

    def close(self) -> None:
        self._there.close()


def _at_work(state: Path, *, receivers: bool = False) -> list[int]:
    """Those who receive, and those who bring memory, in that state directory; a job's watcher is neither."""
    found = []
    session = int(state.with_suffix(".session").read_text())
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if b"receive" not in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                continue
            fds = [os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")]
            if os.getsid(int(entry)) == session or (not receivers and "anon_inode:[userfaultfd]" in fds):
                found.append(int(entry))
    return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    with ExitStack() as stack:
        stack.enter_context(network.of_our_own())
        for name, size in (("here", "96m"), ("there", "96m")):
            stack.enter_context(_disk(tmp_path / name, size))
        made = World(tmp_path)
        stack.callback(made.close)
        yield made
        for job in jobs.list_jobs():
            if job.status == jobs.RUNNING:
                jobs.kill(job, signal.SIGKILL)


@contextmanager
def _disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "disk", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _numbers(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split("\n")[:-1] if line]


def _wait_for_more(log: Path, n_lines: int, case: object) -> list[int]:
    with FileWatch(log, IN_MODIFY) as changes:
        n_wanted = len(_numbers(log)) + n_lines
        while len(found := _numbers(log)) < n_wanted:
            assert select.select((changes,), (), (), time_limit_s(20))[0], f"{case}: {log} does not grow"
            changes.drain()
    return found


def _start(world: World) -> None:
    """The job runs here, from its beginning, and nowhere else."""
    if "counter" in world.there.jobs():
        world.there.run("kill", "--signal", "KILL", "--remove", "counter")
    known = {job.name: job for job in jobs.list_jobs()}.get("counter")
    if known is not None:
        if known.status == jobs.RUNNING:
            jobs.kill(known, signal.SIGKILL)
        jobs.remove(jobs.find("counter"))
    for generation in jobs.generations.list_of("counter"):
        jobs.generations.remove(generation)
    job = jobs.start([sys.executable, "-S", "-c", _COUNTER], "counter")
    _wait_for_more(job.log, 3, "at the start")


def _judge(world: World, case: Case, code: int, told: str) -> str:
    """Where it lives, once it is clear that it does, and that it does so once."""
    here = {job.name: job.status for job in jobs.list_jobs()}.get("counter", "")
    other = world.there.jobs().get("counter", "") if os.path.exists(f"/proc/{world.there.pid}") else ""
    states = f"{case}: here {here!r}, there {other!r}, exit code {code}\n{told}"
    assert (here == jobs.RUNNING) + (other == jobs.RUNNING) <= 1, states
    if other == jobs.RUNNING:
        return "there"
    if here == jobs.RUNNING:
        return "here"
    if case.harm == "host" and (code == 0 or "has come to run on there, with all of its memory" in told):
        return "there, until its host died"
    assert here == jobs.CHECKPOINTED, states
    assert code in (4, -9), states
    done = subprocess.run([world.there.torpor, "restore", "counter"], capture_output=True, text=True, check=False)
    if done.returncode and code == -9 and case.way != "never":
        # Who had memory yet to give has been killed.
        assert "are in no image" in done.stderr, f"{states}{done.stderr}"
        return "ended with its source"
    assert done.returncode == 0, f"{states}{done.stderr}"
    return "asleep here"


def _look(world: World, case: Case, where: str, before: int) -> None:
    """It goes on where it was."""
    if where in ("there", "here", "asleep here"):
        log = world.there.state / "jobs/counter/log" if where == "there" else jobs.find("counter").log
        found = _wait_for_more(log, 2, case)
        first, wanted = found[0], list(range(found[0], found[0] + len(found)))
        assert found == wanted, f"{case}: {found[:3]} ... {found[-3:]}"
        assert first in (before, before + 1) if where == "there" else first == 0, f"{case}: {before}, then {first}"


def _one(world: World, case: Case) -> None:
    _start(world)
    with open(jobs.find("counter").log) as log:
        code, told = world.migrate(case)
        case.came = _judge(world, case, code, told)
        if case.harm != "source" and not (world.base / "harmed").exists():
            case.came += ", unharmed"
        world_log = [line for line in log.read().split("\n")[:-1] if line]
        _look(world, case, case.came.removesuffix(", unharmed"), int(world_log[-1]))


def test_one_of_it_lives_whatever_happens(world: World) -> None:
    cases = _cases()
    failed = []
    for case in cases:
        began = time.monotonic()
        try:
            _one(world, case)
        except (AssertionError, subprocess.SubprocessError) as error:
            if len(cases) == len(_IN_CI):
                raise
            failed.append(f"{case}: {error}")
            print(failed[-1], flush=True)
            case.came = "WRONG"
        print(f"{case}: it is {case.came} ({time.monotonic() - began:.1f} s)", flush=True)
        world.mend()
    print(_table(cases))
    assert not failed, "\n".join(failed)
    # Nothing is left when the next one has gone.
    _start(world)
    code, told = world.migrate(Case("nothing", 0.0, "cut", "never"))
    assert code == 0, told
    assert world.there.leftovers() == [] and [p for p in (world.base / "here").glob("migrating/*")] == []


def _table(cases: list[Case]) -> str:
    outcomes = sorted({case.came for case in cases})
    lines = [f"| phase | cases | {' | '.join(outcomes)} |", "|---" * (len(outcomes) + 2) + "|"]
    for what in ("message", "harm", "way"):
        names = list(dict.fromkeys({"message": MESSAGES, "harm": HARMS, "way": WAYS}[what]))
        for name in names:
            mine = [case for case in cases if getattr(case, what) == name]
            count = Counter(case.came for case in mine)
            cells = " | ".join(str(count[each] or "") for each in outcomes)
            lines.append(f"| {'post-copy ' * (what == 'way')}{name} | {len(mine)} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(*_at_work(Path(sys.argv[1]), receivers=True))
