"""A second checkpoint of a job that is interrupted: the first is as it was, bit for bit, and wakes; the job runs on.

By signals at any instant, by a disk that is full (of bytes, of inodes), by one that can only be read from then on; and
by a power cut, which is what a copy of the state directory at some instant shows. Nothing is left lying about after the
next command.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import become_subreaper
from harness.instants import Instants
from harness.processes import MARK_VARIABLE, find_tree, new_mark
from harness.rounds import rounds
from torpor.cli import torpor
from torpor.engine import jobs
from torpor.engine.jobs import generations

pytestmark = pytest.mark.root

N_ROUNDS = rounds(2, 50)
SEED = 20261128
#: With some memory, so that writing takes its time.
PROGRAM = "import time; held = bytearray(b'x') * (8 << 20); print('there', flush=True); time.sleep(10000)"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory on a file system of its own, in which a job has been checkpointed once and runs on."""
    become_subreaper()
    place, mark = tmp_path / "state", new_mark()
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,nr_inodes=4000", "tmpfs", place], check=True)
    try:
        monkeypatch.setenv("TORPOR_STATE", str(place))
        environment = {MARK_VARIABLE: mark, "PATH": os.environ["PATH"]}
        job = jobs.start(["python3", "-c", PROGRAM], "held", environment=environment, directory="/")
        for _ in jobs.follow_log(job, follow=True):
            break
        assert torpor.main(["checkpoint", "held", "--leave-running"]) == 0
        yield place
    finally:
        try:
            for pid in find_tree(mark):
                with suppress(ProcessLookupError):  # a copy that has been killed already may be on its way out
                    os.kill(pid, signal.SIGKILL)
            jobs.wait_ended(jobs.find("held"))
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def _sums(state: Path, number: int = 1) -> dict[str, str]:
    home = state / "checkpoints/held" / str(number)
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def _listing(state: Path) -> list[str]:
    return sorted(str(path.relative_to(state)) for path in state.rglob("*") if not path.name.startswith("watcher-"))


def _child(line: list[str]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            null = os.open("/dev/null", os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            code = torpor.main(line)
        finally:
            os._exit(code)
    return child


def _is_as_before(state: Path, sums: dict[str, str], listing: list[str], number: int) -> None:
    """After the next command, that is."""
    job = jobs.find("held")
    assert job.status == jobs.RUNNING
    assert torpor.main(["prune", "--keep-last", "100"]) == 0
    assert _sums(state) == sums
    if len(generations.list_of("held")) == 1:
        assert _listing(state) == listing
    if number == 0:
        _restore_a_copy()
        assert torpor.main(["rm", "copy"]) == 0
        for name in ("stats-restore",):
            (state / "checkpoints/held/1/images" / name).unlink(missing_ok=True)


def _restore_a_copy() -> None:
    """It wakes, and is ended at once; nobody else waits for it."""
    assert torpor.main(["restore", "held@1", "--name", "copy"]) == 0
    copy = jobs.find("copy")
    os.kill(copy.pid, signal.SIGKILL)
    os.waitpid(copy.pid, 0)
    assert jobs.wait_ended(copy).status == jobs.ENDED


def _run_down(state: Path) -> None:
    """Make the job run again, and its first checkpoint the only one."""
    if jobs.find("held").status != jobs.RUNNING:
        assert torpor.main(["restore", "held"]) == 0
    for each in generations.list_of("held")[1:]:
        assert torpor.main(["rm", each.label]) == 0
        (each.directory.parent / ".last").write_text("1\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_by_a_signal(state: Path, number: int) -> None:
    n_interrupted, began = 0, time.monotonic()
    assert torpor.main(["checkpoint", "held"]) == 0
    instants = Instants(SEED, time.monotonic() - began)
    _run_down(state)
    assert torpor.main(["prune", "--keep-last", "1"]) == 0
    sums, listing = _sums(state), _listing(state)
    for each in range(N_ROUNDS):
        child = _child(["checkpoint", "held"])
        # The instant is what is tested; nothing is waited for.
        time.sleep(instants.draw())
        os.kill(child, number)
        os.waitpid(child, 0)
        runs = jobs.find("held").status == jobs.RUNNING
        instants.learn(finished=not runs)
        if runs:
            n_interrupted += 1
            _is_as_before(state, sums, listing, each)
        assert _sums(state) == sums
        _run_down(state)
    print(f"{n_interrupted} of {N_ROUNDS} came in time")


def test_by_a_disk_without_room(state: Path) -> None:
    sums, rng = _sums(state), random.Random(SEED)
    assert torpor.main(["prune", "--keep-last", "1"]) == 0
    listing = _listing(state)
    for each in range(N_ROUNDS):
        free = os.statvfs(state).f_bavail * 4096
        filler = state / "filler"
        if each % 2:
            filler.write_bytes(bytes(free - rng.randrange(0, 9 << 20, 4096)))
        else:
            filler.mkdir()
            for count in range(os.statvfs(state).f_favail - rng.randrange(15)):
                (filler / str(count)).touch()
        assert torpor.main(["checkpoint", "held"]) == 1
        job = jobs.find("held")
        assert job.status == jobs.RUNNING
        shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
        _is_as_before(state, sums, listing, each)


def test_by_a_disk_that_becomes_read_only(state: Path) -> None:
    sums = _sums(state)
    assert torpor.main(["prune", "--keep-last", "1"]) == 0
    listing = _listing(state)
    for each in range(2):
        subprocess.run(["mount", "-o", "remount,bind,ro", state], check=True)
        assert torpor.main(["checkpoint", "held"]) == 1
        assert jobs.find("held").status == jobs.RUNNING
        subprocess.run(["mount", "-o", "remount,bind,rw", state], check=True)
        _is_as_before(state, sums, listing, each)


def test_by_a_power_cut(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, began = _sums(state), time.monotonic()
    assert torpor.main(["checkpoint", "held", "--leave-running"]) == 0
    instants = Instants(SEED, time.monotonic() - began)
    for each in range(N_ROUNDS):
        _run_down(state)
        child = _child(["checkpoint", "held", "--leave-running"])
        time.sleep(instants.draw())
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        instants.learn(finished=ended is not None)
        after = tmp_path / f"after{each}"
        # What is renamed meanwhile is not found: that is none of the first checkpoint's.
        subprocess.run(["cp", "-a", state, after], stderr=subprocess.DEVNULL, check=False)
        os.waitpid(child, 0)
        assert _sums(after) == sums
        monkeypatch.setenv("TORPOR_STATE", str(after))
        _restore_a_copy()
        whole = {str(found.number) for found in generations.list_of("held")}
        assert torpor.main(["prune", "--keep-last", "100"]) == 0
        assert set(os.listdir(after / "checkpoints/held")) - {".last"} == whole
        monkeypatch.setenv("TORPOR_STATE", str(state))
        shutil.rmtree(after)
