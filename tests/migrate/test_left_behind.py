"""The other host is gone at "go", and memory was to come later: all is in the images here, and goes on from there."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import relay
from harness.events import IN_MODIFY, FileWatch, become_subreaper, time_limit_s
from harness.hosts import Host, host
from torpor.engine import jobs

pytestmark = pytest.mark.root
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
#: Has memory in several mappings, some of it shared, and a child with a copy of it; checks each byte at each step.
_CHECKER = """
import mmap, os, sys, time
chance = __import__("random").Random(1)
data = bytearray(chance.randbytes(4 << 20))
shared = mmap.mmap(-1, 1 << 20)
shared[:] = chance.randbytes(1 << 20)
kept, kept_shared = bytes(data), bytes(shared)
is_child = os.fork() == 0
n = 0
while True:
    data[n * 4096 % len(data)] ^= 255
    data[n * 4096 % len(data)] ^= 255
    assert data == kept and shared[:] == kept_shared, n
    if not is_child:
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)
        print(n, flush=True)
    n += 1
    time.sleep(0.01)
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "here"))
    with host(tmp_path, "there") as made:
        yield made
    for job in jobs.list_jobs():
        if job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


@contextmanager
def _a_process(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    log = tmp_path / "log"
    with open(log, "wb") as stream, open(os.devnull, "rb") as null:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _CHECKER], stdin=null, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            yield process.pid, log
        finally:
            for pid in _members(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def _members(session: int) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(entry)) == session:
                found.append(int(entry))
        except ProcessLookupError:
            continue
    return found


def _numbers(log: Path, n_lines: int) -> list[int]:
    """What stands in *log*, once that are so many."""
    with FileWatch(log, IN_MODIFY) as changes:
        while len(found := [int(line) for line in log.read_text().split("\n")[:-1]]) < n_lines:
            assert select.select((changes,), (), (), time_limit_s(30))[0], log.read_text()
            changes.drain()
    return found


def _begin(what: str, there: Host, tmp_path: Path, when: float, *words: str) -> subprocess.Popen[str]:
    """A migration whose other host dies at "go": *when* tells how many seconds after it, or before."""
    rsh = tmp_path / "harm"
    rsh.write_text(f'#!/bin/sh\nexec {sys.executable} {relay.__file__} go {when} host {there.rsh} "$@"\n')
    rsh.chmod(0o755)
    line = [*TORPOR, "migrate", what, "there", "--rsh", str(rsh), "--remote-torpor", str(there.torpor), "-y", *words]
    return subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _give_up(migration: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> str:
    """As soon as that can be done; what has been said."""
    said = ""
    with migration:
        assert migration.stderr is not None
        for line in migration.stderr:
            said += line
            if "Ctrl-C gives up" in line:
                migration.send_signal(number)
        assert migration.wait(time_limit_s(60)) == 4, said
    return said


@pytest.mark.parametrize(
    ("when", "words"), [(-0.0001, ("--post-copy", "now")), (0.0, ("--post-copy", "auto", "--downtime", "1ms"))]
)
def test_a_job_is_whole_in_its_checkpoint_here(
    when: float, words: tuple[str, ...], there: Host, tmp_path: Path
) -> None:
    job = jobs.start([sys.executable, "-S", "-c", _CHECKER], "checker")
    before = _numbers(job.log, 3)
    said = _give_up(_begin("checker", there, tmp_path, when, *words))
    assert "only if it does not run there: torpor restore checker@1" in said, said
    assert jobs.find("checker").status == jobs.CHECKPOINTED
    done = subprocess.run([*TORPOR, "restore", "checker"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = _numbers(jobs.find("checker").log, len(before) + 20)
    assert after == list(range(len(after)))
    assert subprocess.run([*TORPOR, "verify", "checker@1"], capture_output=True, check=False).returncode == 0


def test_a_process_is_whole_in_its_images_here(there: Host, tmp_path: Path) -> None:
    with _a_process(tmp_path) as (pid, log):
        before = _numbers(log, 3)
        said = _give_up(_begin(str(pid), there, tmp_path, 0.0, "--post-copy", "now"), signal.SIGTERM)
        images = said.split("only if it does not run there: torpor restore ")[1].split()[0].rstrip(")")
        for each in _members(pid):
            assert os.waitpid(each, 0)[1] == signal.SIGKILL
        done = subprocess.run([*TORPOR, "restore", images], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        after = _numbers(log, len(before) + 20)
        assert after == list(range(len(after)))
