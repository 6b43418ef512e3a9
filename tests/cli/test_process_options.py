"""The table of options for processes: check, checkpoint, restore and Python know the same ones, and act alike."""

import argparse
import ctypes
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import torpor
from harness.events import ProcessWatch, become_subreaper, time_limit_s
from torpor.base.errors import UsageError
from torpor.cli import process_options
from torpor.cli.process_options import CHECK, CHECKPOINT, OPTIONS, RESTORE

TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]
_FUNCTIONS: dict[str, Callable[..., object]] = {CHECK: torpor.examine, CHECKPOINT: torpor.dump, RESTORE: torpor.restore}
#: What needs a value gets this one.
_VALUES = {
    "external": "file[1:1]",
    "ghost-limit": "5",
    "exec-processes": "carry",
    "snapshot": "always",
    "inherit-fd": "fd[0]:pipe:[1]",
    "file-validation": "filesize",
}
#: What only one side can mean.
_ONLY_BEFORE = {"leave-running", "ghost-limit", "exec-processes", "force", "snapshot"}
_ONLY_RESTORE = {"inherit-fd", "file-validation", "rewind-files", "no-verify", "new-network", "lazy", "trust"}


def words(option: process_options.Option) -> list[str]:
    return [f"--{option.name}={_VALUES[option.name]}" if option.value else f"--{option.name}"]


def run(*line: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, line)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_is_an_argument_in_python(option: process_options.Option) -> None:
    for command in option.at:
        if command != CHECK or option.name not in ("leave-running", "leave-stopped", "snapshot"):
            assert option.keyword in inspect.signature(_FUNCTIONS[command]).parameters, command


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_what_a_checkpoint_is_told_the_restore_may_be_told_again(option: process_options.Option) -> None:
    if option.name in _ONLY_RESTORE:
        assert option.at == (RESTORE,)
    else:
        assert CHECKPOINT in option.at
        assert (RESTORE in option.at) == (option.name not in _ONLY_BEFORE)
    assert option.restored or option.text


@pytest.mark.parametrize("command", _FUNCTIONS)
def test_what_is_said_becomes_the_arguments_of_the_function(command: str) -> None:
    parser = argparse.ArgumentParser()
    process_options.add(parser, command)
    mine = [option for option in OPTIONS if command in option.at and option.name != "tcp-close"]
    args = parser.parse_args([word for option in mine for word in words(option)])
    told = process_options.keywords(args, command)
    assert {option.keyword for option in mine} == set(told)
    inspect.signature(_FUNCTIONS[command]).bind("what", *(["where"] if command == CHECKPOINT else []), **told)


def test_two_that_exclude_each_other() -> None:
    parser = argparse.ArgumentParser()
    process_options.add(parser, CHECKPOINT)
    with pytest.raises(UsageError, match="exclude each other"):
        process_options.keywords(parser.parse_args(["--tcp-close", "--tcp-established"]), CHECKPOINT)


def start(*line: str, **more: object) -> "subprocess.Popen[bytes]":
    null = subprocess.DEVNULL
    streams = {"stdin": null, "stdout": null, "stderr": null, **more}
    return subprocess.Popen(line, cwd="/", process_group=0, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def job() -> Iterator["subprocess.Popen[bytes]"]:
    """As an interactive shell's `&` starts one: in its session, in a group of its own."""
    become_subreaper()
    process = start("sleep", "1000")
    yield process
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def end(pid: int) -> None:
    with ProcessWatch(pid) as restored:
        restored.signal(signal.SIGKILL)
        assert restored.wait_ended(time_limit_s(10))
        restored.reap()


@pytest.mark.root
@pytest.mark.parametrize("option", [o for o in OPTIONS if RESTORE in o.at and CHECKPOINT in o.at], ids=lambda o: o.name)
def test_checkpoint_and_restore_take_the_same(
    option: process_options.Option, job: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    pid, said = str(job.pid), words(option)
    if CHECK in option.at:
        done = run(*TORPOR, "check", pid, *said)
        assert done.returncode == 0 and "nothing in the way" in done.stdout, done.stdout + done.stderr
    done = run(*TORPOR, "checkpoint", pid, "-o", tmp_path / "nap", *said)
    assert done.returncode == 0, done.stderr
    job.kill()
    job.wait()
    done = run(*TORPOR, "restore", tmp_path / "nap", *said)
    assert done.returncode == 0, done.stderr
    end(job.pid)


@pytest.mark.root
def test_a_shells_job_without_a_terminal_leads_a_session_of_its_own(
    job: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """nohup's and `&`'s: their session's leader is the shell, which is not put to sleep."""
    assert os.getsid(job.pid) != job.pid
    assert run(*TORPOR, "checkpoint", str(job.pid), "-o", tmp_path / "nap").returncode == 0
    job.wait()
    assert run(*TORPOR, "restore", tmp_path / "nap").returncode == 0
    assert (os.getsid(job.pid), os.getpgid(job.pid)) == (job.pid, job.pid)
    end(job.pid)


@pytest.mark.root
def test_what_is_lost_is_told_and_asked_about(tmp_path: Path) -> None:
    """Events that nobody has read yet."""
    watch = ctypes.CDLL(None, use_errno=True)
    descriptor = watch.inotify_init1(0)
    assert watch.inotify_add_watch(descriptor, os.fsencode(tmp_path), 0x100) > 0
    (tmp_path / "new").touch()
    with start("sleep", "1000", pass_fds=(descriptor,)) as process:
        os.close(descriptor)
        pid = str(process.pid)
        try:
            checked = run(*TORPOR, "check", pid)
            assert checked.returncode == 0 and f"{pid}: will be lost: fd {descriptor} of pid {pid}" in checked.stdout
            refused = run(*TORPOR, "checkpoint", pid, "-o", tmp_path / "nap")
            assert refused.returncode == 1 and "inotify events" in refused.stderr and "--yes" in refused.stderr
            assert process.poll() is None
            assert run(*TORPOR, "checkpoint", "--yes", pid, "-o", tmp_path / "nap").returncode == 0
        finally:
            process.kill()


@pytest.mark.root
def test_all_that_is_in_the_way_is_told_by_both(tmp_path: Path) -> None:
    """A deleted file that is too large, behind the standard output, and one more."""
    big = tmp_path / "big"
    with big.open("wb") as stream, start("sleep", "1000", stdout=stream.fileno()) as process:
        stream.write(bytes(3 << 20))
        stream.flush()
        big.unlink()
        try:
            for line in (["check"], ["checkpoint", "-o", str(tmp_path / "nap")]):
                done = run(*TORPOR, *line, str(process.pid), "--ghost-limit=1")
                assert done.returncode == 1
                assert "takes 3145728 bytes, more than --ghost-limit" in done.stdout + done.stderr
            assert process.poll() is None and not (tmp_path / "nap").exists()
            assert "nothing in the way" in run(*TORPOR, "check", str(process.pid)).stdout
        finally:
            process.kill()
