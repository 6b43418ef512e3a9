"""`torpor restore --lazy`: the memory comes from the images behind a tree that runs already."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.events import ProcessWatch, time_limit_s
from harness.workload import Workload

pytestmark = pytest.mark.root

WORKLOADS = ["later_memory", "private_memory", "threads", "family", "shared_tables", "growing_stack", "zombies"]

#: What it does at a stage: the arguments are the images, the stage, and what is done then.
_RESTORE = """
import os, shutil, signal, sys
import torpor
from torpor.migrate import behind

images, stage, what = sys.argv[1:]

def bringer():
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            # Bytes: names and words of others, who run beside us, need not be text.
            line = open(f"/proc/{name}/cmdline", "rb").read()
            parent = int(open(f"/proc/{name}/stat", "rb").read().rpartition(b")")[2].split()[1])
            above = open(f"/proc/{parent}/cmdline", "rb").read()
            if os.fsencode(images) in line and int(name) != os.getpid() and os.fsencode(images) in above:
                return int(name)
        except OSError:
            pass
    raise AssertionError("nobody brings pages")

def told(action, pid):
    if action == stage:
        exec(what)

def killed(self):
    os.kill(os.getpid(), signal.SIGKILL)

if stage == "gone":
    behind.Behind.restored = killed
torpor.restore(images, lazy=True, notify=told)
"""


def restore(workload: Workload, *words: str) -> None:
    line = [sys.executable, "-m", "torpor.cli.torpor", "restore", str(workload.images), "--lazy", *words]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL, timeout=time_limit_s(60))
    workload.runs_as(workload.pid)


def restore_and(workload: Workload, stage: str, what: str) -> int:
    """The exit code of a restore that does *what* at *stage*."""
    line = [sys.executable, "-c", _RESTORE, str(workload.images), stage, what]
    return subprocess.run(line, check=False, stdin=subprocess.DEVNULL, timeout=time_limit_s(60)).returncode


def left_behind(workload: Workload) -> list[int]:
    """The processes that serve it."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if str(workload.images).encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


def wait_all_end(workload: Workload) -> None:
    for pid in left_behind(workload):
        with suppress(ProcessLookupError), ProcessWatch(pid) as watch:
            assert watch.wait_ended(time_limit_s(20)), pid


def wait_dead(pid: int) -> None:
    """What was restored ends, and its pid is free."""
    with suppress(ProcessLookupError), ProcessWatch(pid) as watch:
        assert watch.wait_ended(time_limit_s(20))
        watch.reap()


@contextmanager
def dumped(name: str, *options: str) -> Iterator[Workload]:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.dump(options=options)
        yield workload


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_tree_finds_its_memory_as_it_was(name: str) -> None:
    with dumped(name) as workload:
        restore(workload)
        workload.expect_pass()
        wait_all_end(workload)


def test_both_end_when_all_is_there_and_the_tree_is_as_any_other() -> None:
    with dumped("later_memory") as workload:
        restore(workload)
        wait_all_end(workload)
        smaps = Path(f"/proc/{workload.pid}/smaps").read_text()
        assert not [line for line in smaps.splitlines() if line.startswith("VmFlags:") and " um" in line]
        workload.dump()
        workload.restore()
        workload.expect_pass()


def test_the_images_may_be_removed_as_soon_as_it_runs() -> None:
    with dumped("later_memory") as workload:
        pid = workload.pid
        assert restore_and(workload, "post-resume", "shutil.rmtree(images)") == 0
        workload.runs_as(pid)
        workload.expect_pass()
        wait_all_end(workload)


def test_who_brings_the_memory_is_killed_and_the_tree_is_not_left_with_zeroes() -> None:
    """It has not brought anything yet, so that whoever runs on would find other bytes, and say so."""
    with dumped("later_memory") as workload:
        pid = workload.pid
        assert restore_and(workload, "pre-resume", "os.kill(bringer(), signal.SIGKILL)") in (0, 1)
        wait_dead(pid)
        wait_all_end(workload)
        assert workload.status() == "ready"
        if "is ended" in workload.log():
            assert f"pid {pid} is ended, for who brought its memory from {workload.images}" in workload.log()
        workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("stage", ["post-restore", "pre-resume"])
def test_the_command_is_killed_before_it_runs(stage: str) -> None:
    with dumped("later_memory") as workload:
        assert restore_and(workload, stage, "os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
        wait_dead(workload.pid)
        wait_all_end(workload)
        workload.restore()
        workload.expect_pass()


def test_the_command_is_killed_when_it_has_let_the_tree_go() -> None:
    with dumped("later_memory") as workload:
        pid = workload.pid
        assert restore_and(workload, "gone", "") == -signal.SIGKILL
        workload.runs_as(pid)
        workload.expect_pass()
        wait_all_end(workload)


def checkpoint(workload: Workload, place: Path, **arguments: object) -> None:
    code = f"import sys, torpor; torpor.dump(int(sys.argv[1]), sys.argv[2], **{arguments})"
    subprocess.run([sys.executable, "-c", code, str(workload.pid), str(place)], check=True, timeout=time_limit_s(60))
    workload.wait_gone()


def test_compressed_memory_comes_as_well() -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        shutil.rmtree(workload.images)
        checkpoint(workload, workload.images, compress=True)
        assert list(workload.images.glob("pages-*.zst"))
        restore(workload)
        workload.expect_pass()
        wait_all_end(workload)


def test_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        archive = tmp_path / "x.tar"
        checkpoint(workload, archive)
        line = [sys.executable, "-m", "torpor.cli.torpor", "restore", str(archive)]
        done = subprocess.run([*line, "--lazy"], check=False, capture_output=True, text=True, timeout=time_limit_s(60))
        assert done.returncode == 2, done.stderr
        assert "--lazy: an archive is read to its end" in done.stderr and "tar -xf" in done.stderr
        subprocess.run(line, check=True, stdin=subprocess.DEVNULL, timeout=time_limit_s(60))
        workload.runs_as(workload.pid)
        workload.expect_pass()
