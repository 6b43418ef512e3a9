"""``torpor checkpoint X -o -`` and ``torpor restore -``: one stream, no files, and nobody is lost on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

import torpor
from harness.events import ProcessWatch, become_subreaper, time_limit_s
from torpor.cli import torpor as command
from torpor.engine import jobs
from torpor.images.store import ImageStore
from torpor.images.stores.memory import MemStore

pytestmark = pytest.mark.root
NULL = subprocess.DEVNULL
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
#: More than any pipe takes, so that whoever writes it waits for its reader.
_FILL = "data = bytes(range(256)) * (16 << 12)"
_PROGRAM = f"import signal; {_FILL}; print('ready', flush=True); signal.pause()"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    become_subreaper()
    return tmp_path / "state"


@contextmanager
def _started(directory: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process with some memory; whatever has its pid is ended."""
    (directory / "out").touch()
    with open(directory / "out", "r+b", buffering=0) as out:
        line = [sys.executable, "-S", "-c", _PROGRAM]
        process = subprocess.Popen(line, stdin=NULL, stdout=out, stderr=NULL, cwd="/", start_new_session=True)
    try:
        _wait_for(directory / "out", process)
        yield process
    finally:
        process.kill()
        process.wait()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """Such a process, for other processes to checkpoint; whoever restores it finds its pid free."""
    with _started(tmp_path) as process:
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        yield process.pid
        process.kill()
        reaper.join()


def _wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    with subprocess.Popen(["tail", "-n", "+1", "-f", path, f"--pid={process.pid}"], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None and tail.stdout.readline() == b"ready\n"
        tail.kill()


def _checkpoint(*words: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*TORPOR, "checkpoint", *words], stdin=NULL, stdout=stdout, stderr=subprocess.PIPE)


def _restore(*words: str, stdin: "IO[bytes] | int" = NULL) -> str:
    done = subprocess.run([*TORPOR, "restore", *words], stdin=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def _said(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read().decode()
    process.wait(time_limit_s(30))
    return said


def test_from_one_command_into_the_other(target: int) -> None:
    writer = _checkpoint(str(target), "-o", "-", "--json", stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        assert f"pid {target}" in _restore("-", stdin=writer.stdout)
    told = json.loads(_said(writer))
    assert writer.returncode == 0
    assert told["processes"] == 1 and told["in"] == "-" and told["size_bytes"] is None
    with ProcessWatch(target) as watch:
        assert not watch.has_ended()


def test_whoever_reads_it_goes_away_and_the_process_runs_on(target: int) -> None:
    for n_taken in (0, 1000, 8 << 20):
        left = n_taken
        writer = _checkpoint(str(target), "-o", "-", stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout:
            while left > 0 and (data := writer.stdout.read(min(left, 1 << 16))):
                left -= len(data)
        assert "its reader has gone" in _said(writer)
        assert writer.returncode == 1
        _check_free(target)


def _check_free(pid: int) -> None:
    # Of one that has just been let go it is for the scheduler to say when it sleeps again.
    while "State:\tR" in (status := Path(f"/proc/{pid}/status").read_text()):
        os.sched_yield()
    assert "TracerPid:\t0" in status and "State:\tS" in status, status


def test_whoever_writes_it_is_killed_and_the_process_runs_on(target: int) -> None:
    writer = _checkpoint(str(target), "-o", "-", stdout=subprocess.PIPE)
    assert writer.stdout is not None
    begin = writer.stdout.read(1 << 20)  # it waits with the rest: the pipe is full
    writer.kill()
    reader = subprocess.Popen([*TORPOR, "restore", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdin is not None
    with writer.stdout, reader.stdin:
        reader.stdin.write(begin + writer.stdout.read())
    assert "standard input: cut off after" in _said(reader)
    assert reader.returncode == 1
    _said(writer)
    _wait_let_go(target)


def _wait_let_go(pid: int) -> None:
    """The kernel lets it go as the dumper dies; that it answers a signal tells that it has."""
    with ProcessWatch(pid) as watch:
        watch.signal(signal.SIGTERM)
        assert watch.wait_ended(time_limit_s(10))


def test_whoever_writes_it_is_interrupted_and_the_process_runs_on(target: int) -> None:
    writer = _checkpoint(str(target), "-o", "-", stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        writer.stdout.read(1 << 20)
        writer.send_signal(signal.SIGINT)
        said = _said(writer)
    assert writer.returncode == 130 and "interrupted" in said, said
    _check_free(target)


def test_nothing_is_written_where_standard_output_is_closed(target: int) -> None:
    line = '"$0" -m torpor.cli.torpor checkpoint "$1" -o - >&-'
    done = subprocess.run(["sh", "-c", line, sys.executable, str(target)], capture_output=True, check=False)
    assert done.returncode == 1 and b"standard output is closed" in done.stderr
    _check_free(target)


def test_who_is_to_run_on_does_not_wait_for_the_reader(target: int, tmp_path: Path) -> None:
    writer = _checkpoint(str(target), "--leave-running", "-o", "-", stdout=subprocess.PIPE)
    assert writer.stdout is not None
    begin = writer.stdout.read(1 << 20)
    _check_free(target)
    with writer.stdout:
        data = begin + writer.stdout.read()
    said = _said(writer)
    assert writer.returncode == 0 and "all sent" in said
    (tmp_path / "x.tar").write_bytes(data)
    assert command.main(["verify", str(tmp_path / "x.tar")]) == 0
    assert not list((tmp_path / "state/unpacked").iterdir())


def test_plain_tar_unpacks_what_is_a_checkpoint(target: int, tmp_path: Path) -> None:
    with open(tmp_path / "x.tar", "wb") as out:
        writer = _checkpoint(str(target), "-o", "-", stdout=out.fileno())
        assert "all sent" in _said(writer)
    (tmp_path / "out-of-it").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "x.tar", "-C", tmp_path / "out-of-it"], check=True)
    _restore(str(tmp_path / "out-of-it"))
    with ProcessWatch(target) as watch:
        assert not watch.has_ended()


def test_a_fifo_is_a_stream_too(target: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tar")
    writer = _checkpoint(str(target), "-o", str(tmp_path / "fifo.tar"))
    _restore(str(tmp_path / "fifo.tar"))
    assert "all sent" in _said(writer)
    with ProcessWatch(target) as watch:
        assert not watch.has_ended()


def test_a_job_goes_through_a_stream_and_is_that_job_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["run", "--name", "clock", "-d", "--", "sleep", "1000"]) == 0
    try:
        with open("/dev/full", "wb") as full:
            assert "cannot write" in _said(_checkpoint("clock", "-o", "-", stdout=full.fileno()))
        assert jobs.find("clock").status == jobs.RUNNING and not jobs.generations.list_of("clock")
        with open(tmp_path / "x.tar", "wb") as out:
            writer = _checkpoint("clock", "-o", "-", stdout=out.fileno())
            assert "all sent" in _said(writer)
        assert jobs.find("clock").status != jobs.RUNNING
        capsys.readouterr()
        assert command.main(["restore", "clock"]) == 1
        assert "clock@1 was written to a stream (-)" in capsys.readouterr().err
        with open(tmp_path / "x.tar", "rb") as stream:
            _restore("-", stdin=stream)
        assert jobs.find("clock").status == jobs.RUNNING
    finally:
        jobs.kill(jobs.find("clock"), signal.SIGKILL)


def test_python_takes_a_store_that_somebody_has_opened(tmp_path: Path) -> None:
    store: ImageStore = MemStore()
    with _started(tmp_path) as process:
        torpor.dump(process.pid, store)
        process.wait()
        checkpoint = torpor.Checkpoint(store)
        assert [each.pid for each in checkpoint.processes] == [process.pid]
        assert checkpoint.size_bytes > checkpoint.memory_bytes > 16 << 20
        assert torpor.restore(store) == process.pid
