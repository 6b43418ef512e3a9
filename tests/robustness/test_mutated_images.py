"""Images are untrusted input: 1,000 damaged ones, each restored for real.

Bytes flipped, files cut, lengths blown up, files removed or swapped.  Whatever comes of it: an exit code and a clear
line, never a traceback, a hang or a half-restored task that lives.
"""

import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.processes import find_tree
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.task import read_children

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

N_MUTATIONS = 1000
WORKLOADS = (
    "threads",
    "pipe_contents",
    "family",
    "unix_pairs",
    "udp",
    "epoll",
    "ghost_files",
    "shared_anonymous",
    "posix_timers",
    "pty_session",
)
LIMIT_S = 30
CLEAR_EXIT_CODES = range(3)
TRACEBACK = 99

Mutation = Callable[[random.Random, Path], str]


def flip(rng: random.Random, directory: Path) -> str:
    path = pick(rng, directory)
    data = bytearray(path.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"{path.name}: bits flipped at {places}"


def cut(rng: random.Random, directory: Path) -> str:
    path = pick(rng, directory)
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name}: cut to {size} bytes"


def blow_up(rng: random.Random, directory: Path) -> str:
    path = pick(rng, directory)
    data = bytearray(path.read_bytes())
    place = rng.randrange(max(1, len(data) - 4))
    value = rng.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000000))
    data[place : place + 4] = value.to_bytes(4, "little")
    path.write_bytes(data)
    return f"{path.name}: {value:#x} at {place}"


def varint(rng: random.Random, directory: Path) -> str:
    path = pick(rng, directory)
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place : place + 1] = bytes([0xFF] * 9 + [0x01])
    path.write_bytes(data)
    return f"{path.name}: the largest number in the place of byte {place}"


def remove(rng: random.Random, directory: Path) -> str:
    path = pick(rng, directory)
    path.unlink()
    return f"{path.name}: removed"


def swap(rng: random.Random, directory: Path) -> str:
    one, other = pick(rng, directory), pick(rng, directory)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{one.name} and {other.name} swapped"


MUTATIONS: tuple[Mutation, ...] = (flip, flip, flip, flip, cut, cut, blow_up, blow_up, varint, varint, remove, swap)


def pick(rng: random.Random, directory: Path) -> Path:
    # Memory contents may be anything: a flipped bit in them is no damage that anybody could notice.
    files = [path for path in sorted(directory.iterdir()) if path.stat().st_size and not path.name.startswith("pages-")]
    files += [path for path in sorted(directory.iterdir()) if path.name.startswith("pages-") and rng.random() < 0.1]
    return rng.choice(files)


def run_in_child(directory: Path) -> int:
    """`criu restore -d` in a fork of this process, which saves a thousand starts of Python; its wait status."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.alarm(0)
        from torpor.cli.criu.main import main

        # With their manifest looked at, all of them would be refused at once.
        arguments = ["restore", "-d", "--no-verify", "-D", str(directory), "-o", "restore.log", "-v4"]
        os._exit(main(arguments))
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(TRACEBACK)


@pytest.mark.parametrize("name", WORKLOADS)
def test_damage_is_survived(name: str, tmp_path: Path) -> None:
    rng = random.Random(20261123)
    n_restored = 0
    with Workload.start(name) as workload:
        workload.wait_ready()
        mark = workload.mark
        workload.dump()
        for number in range(N_MUTATIONS // len(WORKLOADS)):
            damaged = tmp_path / "damaged"
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(workload.images, damaged, ignore=shutil.ignore_patterns("*.log"))
            what = f"mutation {number}: {rng.choice(MUTATIONS)(rng, damaged)}"
            n_restored += survives(damaged, mark, what)
    assert 0 < n_restored < N_MUTATIONS // len(WORKLOADS)


def survives(damaged: Path, mark: str, what: str) -> bool:
    """Whether it was restored after all; AssertionError for anything that must not be."""
    watch = ProcessWatch(run_in_child(damaged))
    with watch:
        if not watch.wait_ended(time_limit_s(LIMIT_S)):
            watch.signal(signal.SIGKILL)
            watch.reap()
            end_children()
            raise AssertionError(f"{what}: the restore hangs")
        _, status = os.waitpid(watch.pid, 0)
    log = (damaged / "restore.log").read_text(errors="replace") if (damaged / "restore.log").exists() else ""
    code = os.waitstatus_to_exitcode(status)
    alive = living_children() if code == 0 else stubborn_children()
    end_children()
    assert not find_tree(mark), f"{what}: somebody outside of our children lives"
    assert code in CLEAR_EXIT_CODES, f"{what}: exit code {code}\n{log[-3000:]}"
    assert "bug:" not in log, f"{what}:\n{log[-3000:]}"
    assert code == 0 or not alive, f"{what}: failed, but {alive} live\n{log[-3000:]}"
    assert code == 0 or "Error" in log or not log, f"{what}: failed without a word"
    return code == 0


def living_children() -> list[int]:
    """What has been restored became our child (this process is a subreaper), whether or not it still bears the mark."""
    return [pid for pid in read_children(Pid(os.getpid())) if read_stat(pid).state not in "ZX"]


def stubborn_children() -> list[int]:
    """Those that do not end by themselves."""
    stubborn = []
    for pid in living_children():
        with ProcessWatch(pid) as watch:
            if not watch.wait_ended(time_limit_s(5)):
                stubborn.append(pid)
    return stubborn


def end_children() -> None:
    """None may stay, and their pids must be free for the next."""
    while children := read_children(Pid(os.getpid())):
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
