"""After many moves there and back a job is as it was after the first ones, and so are both hosts."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harness import network
from harness.events import IN_MODIFY, FileWatch, become_subreaper, time_limit_s
from harness.hosts import HERE, THERE, Host, host, lead_back
from torpor.engine import jobs

pytestmark = pytest.mark.root
#: There and back each time; $TORPOR_CYCLES asks for more.
_N_MOVES = int(os.environ.get("TORPOR_CYCLES", "3"))
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
_COUNTER = """
import time
data, n = bytes(range(256)) * (8 << 12), 0
while True:
    assert data == bytes(range(256)) * (8 << 12), n
    print(n, flush=True)
    n += 1
    time.sleep(0.01)
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    with ExitStack() as stack:
        stack.enter_context(network.of_our_own())
        made = stack.enter_context(host(tmp_path, "there", network=True))
        stack.enter_context(lead_back(tmp_path, tmp_path / "here"))
        yield made
        for job in jobs.list_jobs():
            if job.status == jobs.RUNNING:
                jobs.kill(job, signal.SIGKILL)


def _last(log: Path, n_lines: int) -> int:
    """The last number in *log*, once there are so many."""
    with FileWatch(log, IN_MODIFY) as changes:
        while len(found := [int(line) for line in log.read_text().split("\n")[:-1] if line]) < n_lines:
            assert select.select((changes,), (), (), time_limit_s(30))[0], "it has ended"
            changes.drain()
    assert found == list(range(found[0], found[0] + len(found)))
    return found[-1]


def _measure(there: Host, here: Path) -> dict[str, int]:
    """What must not grow: of the job, which runs here, and of both hosts."""
    job = jobs.find("counter")
    proc = Path(f"/proc/{job.pid}")
    found = {
        "descriptors": len(os.listdir(proc / "fd")),
        "mappings": len((proc / "maps").read_text().splitlines()),
        "mounts of the job": len((proc / "mountinfo").read_text().splitlines()),
        "mounts there": len(Path(f"/proc/{there.pid}/mountinfo").read_text().splitlines()),
    }
    for name, place, words in (("here", here, []), ("there", there.state, ["nsenter", "-t", str(there.pid), "-n"])):
        found[f"files {name}"] = sum(len(files) for _, _, files in os.walk(place))
        found[f"directories {name}"] = sum(1 for _ in os.walk(place))
        found[f"rules {name}"] = len(subprocess.check_output([*words, "nft", "list", "ruleset"]))
        found[f"sockets {name}"] = len(
            subprocess.check_output([*words, "ss", "-Hanl"], stderr=subprocess.DEVNULL).splitlines()
        )
        found[f"processes {name}"] = _count_processes(place)
    return found


def _count_processes(state: Path) -> int:
    """Those that know this state directory; the dead are nobody's concern but their parents'."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            count += os.fsencode(f"TORPOR_STATE={state}\0") in Path(f"/proc/{name}/environ").read_bytes()
    return count


def _resident_kib() -> int:
    status = Path(f"/proc/{jobs.find('counter').pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _grown(found: dict[str, int], first: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (first[name], now) for name, now in found.items() if now > first[name]}


def test_nothing_grows(there: Host, tmp_path: Path) -> None:
    last = _last(jobs.start([sys.executable, "-S", "-c", _COUNTER], "counter").log, 3)
    forth = [*TORPOR, "migrate", "counter", THERE, "--rsh", str(there.rsh), "--remote-torpor", str(there.torpor), "-y"]
    first, resident_kib = {}, 0
    for number in range(_N_MOVES):
        done = subprocess.run(forth, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        before, last = last, _last(there.state / "jobs/counter/log", 2)
        assert last > before
        back = ["--rsh", str(tmp_path / "here.rsh"), "--remote-torpor", str(there.torpor), "-y"]
        there.run("migrate", "counter", HERE, *back)
        before, last = last, _last(jobs.find("counter").log, 2)
        assert last > before
        if number == 0:
            first, resident_kib = _measure(there, tmp_path / "here"), _resident_kib()
    deadline = time.monotonic() + time_limit_s(10)
    while _grown(found := _measure(there, tmp_path / "here"), first) and time.monotonic() < deadline:
        time.sleep(0.05)  # whoever is ending, on a busy machine
    assert not _grown(found, first)
    assert _resident_kib() <= resident_kib + 64
