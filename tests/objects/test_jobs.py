"""Jobs: started in namespaces of their own, listed, ended, their logs and exit statuses kept."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import time_limit_s
from harness.skips import need_mounted_root
from torpor.base.errors import JobError
from torpor.cli import torpor
from torpor.engine import jobs

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of the test's own; what runs in it is killed at the end."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    yield tmp_path
    for job in jobs.list_jobs():
        if job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


def _output(job: jobs.Job) -> str:
    return b"".join(jobs.follow_log(job, follow=True)).decode()


def test_a_job_has_namespaces_of_its_own_but_the_hosts_network() -> None:
    job = jobs.start(["sleep", "1000"], "sleeper")
    differs = {
        name: os.readlink(f"/proc/{job.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        for name in ("pid", "mnt", "uts", "ipc", "net", "user")
    }
    assert differs == {"pid": True, "mnt": True, "uts": True, "ipc": True, "net": False, "user": False}
    status = Path(f"/proc/{job.pid}/status").read_text()
    assert f"NSpid:\t{job.pid}\t1\n" in status
    assert jobs.find("sleeper") == job
    assert [each.name for each in jobs.list_jobs()] == ["sleeper"]


def test_the_log_and_the_exit_status_are_kept() -> None:
    job = jobs.start(["sh", "-c", "hostname; echo $$; ls /proc | grep -c '^[0-9]'; exit 3"], "three")
    assert _output(job).splitlines()[:2] == ["three", "1"]
    ended = jobs.wait_ended(job, time_limit_s(10))
    assert ended.status == jobs.ENDED
    assert ended.exit_status is not None and os.waitstatus_to_exitcode(ended.exit_status) == 3


def test_a_handled_signal_is_delivered_and_an_unhandled_one_becomes_sigkill() -> None:
    handler = jobs.start(["sh", "-c", "trap 'exit 5' TERM; echo on; while :; do sleep 0.01; done"], "handler")
    for _ in jobs.follow_log(handler, follow=True):
        break
    ended = jobs.kill(handler)
    assert ended.exit_status is not None and os.waitstatus_to_exitcode(ended.exit_status) == 5
    ended = jobs.kill(jobs.start(["sleep", "1000"], "deaf"))
    assert ended.exit_status is not None and os.waitstatus_to_exitcode(ended.exit_status) == -signal.SIGKILL


def test_a_signal_that_is_read_counts_as_handled() -> None:
    """While sigwait(3) waits, /proc does not say that it is blocked, and the kernel delivers it all the same."""
    program = (
        "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('on', flush=True); "
        "signal.sigwait([signal.SIGTERM]); sys.exit(6)"
    )
    reader = jobs.start([sys.executable, "-c", program], "reader")
    for _ in jobs.follow_log(reader, follow=True):
        break
    assert jobs.hears(reader, signal.SIGTERM)
    ended = jobs.kill(reader)
    assert ended.exit_status is not None and os.waitstatus_to_exitcode(ended.exit_status) == 6


def test_a_name_is_refused_while_it_is_in_use() -> None:
    first = jobs.start(["sleep", "1000"], "one")
    with pytest.raises(JobError, match="one is running"):
        jobs.start(["sleep", "1000"], "one")
    with pytest.raises(JobError, match="is running"):
        jobs.remove(first)
    jobs.kill(first)
    jobs.remove(jobs.find("one"))
    with pytest.raises(JobError, match="no job called one"):
        jobs.find("one")


def test_a_command_that_is_not_there_leaves_no_job() -> None:
    with pytest.raises(JobError, match="No such file"):
        jobs.start(["/nonexistent/command"], "none")
    assert jobs.list_jobs() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 64, "a\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="cannot name a job"):
        jobs.start(["true"], name)


def test_another_process_with_the_same_pid_is_not_the_job(state: Path) -> None:
    job = jobs.start(["sleep", "1000"], "real")
    record = state / "jobs" / "real" / "state.json"
    text = record.read_text()
    record.write_text(text.replace(f'"start_time": {job.start_time}', '"start_time": 1'))
    assert jobs.find("real").status == jobs.ENDED
    with pytest.raises(JobError, match="not running"):
        jobs.kill(jobs.find("real"))
    record.write_text(text)
    assert jobs.find("real").status == jobs.RUNNING


def test_a_copy_counts_on_beside_the_first_and_writes_its_own_log(state: Path) -> None:
    program = "n=0; while :; do echo count $n; n=$((n + 1)); sleep 0.05; done"
    assert torpor.main(["run", "-d", "--name", "first", "--", "sh", "-c", program]) == 0
    _wait_log(jobs.find("first"), "count 3")
    assert torpor.main(["checkpoint", "first"]) == 0
    assert jobs.find("first").status == jobs.CHECKPOINTED
    seen = (state / "jobs" / "first" / "log").read_text()
    last = int(seen.split()[-1])
    assert torpor.main(["restore", "first"]) == 0
    assert torpor.main(["restore", "first", "--name", "second", "--new-network"]) == 0
    first, second = jobs.find("first"), jobs.find("second")
    assert first.status == second.status == jobs.RUNNING
    assert os.readlink(f"/proc/{first.pid}/ns/net") == os.readlink("/proc/self/ns/net")
    assert os.readlink(f"/proc/{second.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    _wait_log(first, f"count {last + 3}")
    _wait_log(second, f"count {last + 3}")
    assert (state / "jobs" / "second" / "log").read_text().startswith(f"count {last + 1}\n")
    ended = jobs.kill(first)
    assert ended.exit_status in (None, signal.SIGKILL)
    assert jobs.find("second").status == jobs.RUNNING


def _wait_log(job: jobs.Job, text: str) -> None:
    """Until the log has a line *text*."""
    seen = b""
    for chunk in jobs.follow_log(job, follow=True):
        seen += chunk
        if f"{text}\n".encode() in seen:
            return
    raise AssertionError(f"{job.name} ended before it wrote {text}")


@pytest.fixture
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mounts of the host: a file system, a bind of a directory with another mount below it, and one of a file."""
    base = tmp_path_factory.mktemp("mounted")
    for name in ("whole", "part/here", "from/deep"):
        (base / name).mkdir(parents=True)
    for name in ("file", "source"):
        (base / name).touch()
    for line in ("-t tmpfs none whole", "--bind from part/here", "-t tmpfs none part/here/deep", "--bind source file"):
        subprocess.run(["mount", *line.split()], cwd=base, check=True)
    yield base
    for path in ("whole", "part/here/deep", "part/here", "file"):
        subprocess.run(["umount", path], cwd=base, check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("gone", ["points", "sources"])
def test_mounts_of_the_hosts_that_are_not_there_any_more_are_left_out(
    mounted: Path, gone: str, capfd: pytest.CaptureFixture[str]
) -> None:
    need_mounted_root()
    jobs.start(["sh", "-c", "while :; do sleep 1000; done"], "sleeper")
    assert torpor.main(["checkpoint", "sleeper"]) == 0
    for path in ("whole", "part/here/deep", "part/here", "file"):
        subprocess.run(["umount", path], cwd=mounted, check=True)
    for name in ("whole", "part", "file") if gone == "points" else ("from", "source"):
        place = mounted / name
        place.unlink() if place.is_file() else shutil.rmtree(place)
    capfd.readouterr()
    assert torpor.main(["restore", "sleeper"]) == 0
    said = capfd.readouterr().err
    if gone == "points":
        names = ["whole", "part/here", "file"]
    elif mounted.stat().st_dev == os.stat("/").st_dev:
        names = ["part/here", "file"]
    else:
        # Of another file system than the root's it is asked what the host shows at the same place: the bare directory.
        names = ["part/here/deep"]
    for name in names:
        assert f"{mounted / name}: the host" in said and "it is left out" in said


@pytest.mark.parametrize("content", ["", "something"])
def test_mounts_that_the_host_had_unmounted_already(
    mounted: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The job has copies of them, as of those of a chroot in the making; nobody misses them, but for what is there."""
    need_mounted_root()
    (mounted / "terminals").mkdir()
    subprocess.run(["mount", "-t", "devpts", "none", mounted / "terminals"], check=True)
    if content:
        (mounted / "whole" / content).touch()
    jobs.start(["sh", "-c", "while :; do sleep 1000; done"], "sleeper")
    for name in ("terminals", "whole"):
        subprocess.run(["umount", mounted / name], check=True)
    assert torpor.main(["checkpoint", "sleeper"]) == 0
    for name in ("terminals", "whole"):
        (mounted / name).rmdir()
    capfd.readouterr()
    code = torpor.main(["restore", "sleeper"])
    said = capfd.readouterr().err
    if content:
        assert code and f"{mounted / 'whole'} cannot be mounted" in said, said
        (mounted / "whole").mkdir()
        assert torpor.main(["restore", "sleeper"]) == 0
        return
    assert code == 0, said
    for name in ("terminals", "whole"):
        assert f"{mounted / name}: the host's directory has none of that name any more; it is left out" in said
    assert jobs.find("sleeper").status == jobs.RUNNING
