"""What a job's record says, whoever died when; and what is said where it cannot be read."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from torpor.base.errors import JobError, NotPermittedError
from torpor.base.ids import Pid
from torpor.engine.jobs import generations, locks, note, places, registry
from torpor.engine.jobs.registry import CHECKPOINTED, ENDED, NEVER, RUNNING, Job
from torpor.images.errors import ImageError
from torpor.kernel import ptrace

_PTRACE_O_TRACEEXIT = 0x40  # linux/ptrace.h


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as found:
        yield found
        found.kill()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize(("otherwise", "status"), [("", ENDED), (ENDED, ENDED), (CHECKPOINTED, CHECKPOINTED)])
def test_it_is_what_was_written_once_the_process_is_gone(
    process: "subprocess.Popen[bytes]", otherwise: str, status: str
) -> None:
    registry.running(registry.create("one", ("x",)), process.pid, otherwise)
    with locks.held("one", "restored"):
        assert registry.find("one").status == RUNNING
    _end(process)
    found = registry.find("one")
    assert (found.status, found.otherwise) == (status, "")


def test_a_copy_that_never_ran_leaves_nothing(process: "subprocess.Popen[bytes]", state: Path) -> None:
    registry.running(registry.create("copy", ("x",)), process.pid, NEVER)
    _end(process)
    with locks.held("copy", "restored"):
        assert registry.list_jobs() == []
        assert (state / "jobs/copy").exists(), "whoever makes it will see to it"
    assert registry.list_jobs() == []
    assert not (state / "jobs/copy").exists()


def test_what_runs_on_after_the_death_of_whoever_let_it_go_runs_for_good(process: "subprocess.Popen[bytes]") -> None:
    job = registry.running(registry.create("one", ("x",)), process.pid, CHECKPOINTED)
    assert registry.find("one") == replace(job, otherwise="", since=0.0)
    _end(process)
    assert registry.find("one").status == ENDED


def test_a_record_is_not_settled_by_somebody_who_looked_before_it_was_written_anew(
    process: "subprocess.Popen[bytes]",
) -> None:
    before = registry.running(registry.create("one", ("x",)), process.pid, ENDED)
    registry.about_to_sleep(before, 3)
    registry.settle(before)
    _end(process)
    assert (registry.find("one").status, registry.find("one").sleeps_in) == (CHECKPOINTED, 3)


@pytest.mark.root
def test_a_process_that_has_been_killed_does_not_run_even_if_it_is_still_there() -> None:
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    try:
        registry.running(registry.create("one", ("x",)), child, CHECKPOINTED)
        # It stands where it begins to exit, as one does that has not had its turn yet.
        ptrace.seize(Pid(child), _PTRACE_O_TRACEEXIT)
        assert registry.find("one").status == RUNNING
        registry.running(registry.create("two", ("x",)), child, CHECKPOINTED)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSTOPPED(os.waitpid(child, 0)[1])
        assert Path(f"/proc/{child}/stat").read_text().split()[2] == "t"
        assert registry.find("two").status == CHECKPOINTED
        assert registry.find("one").status == ENDED
    finally:
        ptrace.detach(Pid(child))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_watcher_that_writes_late_is_in_nobodys_way(
    process: "subprocess.Popen[bytes]", state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = registry.running(registry.create("one", ("old",)), process.pid)
    flock, remove = fcntl.flock, shutil.rmtree

    def waiting(fd: int, operation: int) -> None:
        """The lock is had when the old directory is gone and a new one is there."""
        monkeypatch.setattr(fcntl, "flock", flock)
        # Something is in the old one that cannot be removed now.
        monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_how: None)
        registry.sleeping(registry.create("one", ("new",)), 1)
        flock(fd, operation)

    _end(process)
    monkeypatch.setattr(fcntl, "flock", waiting)
    registry.ended("one", old.pid, old.start_time, 0)
    assert (registry.find("one").command, registry.find("one").status) == (("new",), CHECKPOINTED)
    monkeypatch.setattr(shutil, "rmtree", remove)
    registry.discard(registry.find("one"))
    assert not list((state / "jobs").iterdir())


def test_what_is_forgotten_is_what_was_looked_at(
    process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.running(registry.create("copy", ("old",)), process.pid, NEVER)
    _end(process)

    before, asked = locks.holder, []

    def nobody(name: str) -> str:
        """Just before the first is forgotten somebody makes a second one."""
        asked.append(name)
        if len(asked) < 2:
            return ""
        monkeypatch.setattr(locks, "holder", before)
        registry.discard(registry.Job(name, (), 0.0))
        registry.create(name, ("new",))
        return ""

    monkeypatch.setattr(locks, "holder", nobody)
    directory = places.job_directory("copy")
    registry.list_jobs()
    assert directory.exists()


@pytest.mark.parametrize(
    ("exit_status", "age_s", "status"),
    [(signal.SIGKILL, 0, CHECKPOINTED), (None, 0, CHECKPOINTED), (0, 0, ENDED), (signal.SIGKILL, 60, ENDED)],
)
def test_a_watcher_tells_the_kill_of_a_checkpoint_from_another_end(
    process: "subprocess.Popen[bytes]", exit_status: int | None, age_s: float, status: str
) -> None:
    job = registry.running(registry.create("one", ("x",)), process.pid)
    registry.save(replace(registry.about_to_sleep(job, 1), since=time.time() - age_s))
    _end(process)
    registry.ended("one", job.pid, job.start_time, exit_status)
    assert registry.find("one").status == status


def test_what_is_foreseen_counts_when_it_is_taken_note_of(
    process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_FRESH_S", 1000.0)
    job = registry.running(registry.create("one", ("x",)), process.pid)
    foreseen = registry.foresee_sleep(job, 3)
    assert registry.find("one") == job
    assert registry.about_to_sleep(job, 3, foreseen) == foreseen
    with locks.held("one", "checkpointed"):
        assert registry.find("one") == foreseen
    assert [path.name for path in job.directory.iterdir()] == ["state.json"]
    _end(process)
    assert (registry.find("one").status, registry.find("one").sleeps_in) == (CHECKPOINTED, 3)


@pytest.mark.parametrize("how", ["old", "later", "gone"])
def test_what_was_foreseen_long_ago_is_written_anew(process: "subprocess.Popen[bytes]", how: str) -> None:
    """A watcher takes a kill for that of the checkpoint for some seconds only."""
    job = registry.running(registry.create("one", ("x",)), process.pid)
    foreseen = registry.foresee_sleep(job, 3)
    if how == "gone":
        (job.directory / ".state.foreseen").unlink()
    else:
        foreseen = replace(foreseen, since=time.time() + (60 if how == "later" else -60))
    noted = registry.about_to_sleep(job, 3, foreseen)
    assert abs(time.time() - noted.since) < 50 and noted.otherwise == CHECKPOINTED
    with locks.held("one", "checkpointed"):
        assert registry.find("one") == noted


def test_what_is_foreseen_of_a_checkpoint_that_fails_is_nothing(process: "subprocess.Popen[bytes]") -> None:
    job = registry.running(registry.create("one", ("x",)), process.pid)
    registry.foresee_sleep(job, 3)
    registry.foresee_nothing(job)
    registry.foresee_nothing(job)
    assert [path.name for path in job.directory.iterdir()] == ["state.json"]
    registry.foresee_sleep(job, 3)
    _end(process)
    assert (registry.find("one").status, registry.find("one").sleeps_in) == (ENDED, 0)


def test_another_boot(process: "subprocess.Popen[bytes]") -> None:
    job = registry.running(registry.create("one", ("x",)), process.pid, CHECKPOINTED)
    registry.save(replace(job, boot_id="another"))
    assert registry.find("one").status == CHECKPOINTED


def test_jobs_that_cannot_be_read_break_nothing(
    process: "subprocess.Popen[bytes]", state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "theirs", "torn"):
        registry.running(registry.create(name, ("x",)), process.pid)
    (state / "jobs/torn/state.json").write_text("{")
    before = registry._read

    def read(directory: Path) -> Job | None:
        if directory.name == "theirs":
            raise PermissionError
        return before(directory)

    monkeypatch.setattr(registry, "_read", read)
    assert [job.name for job in registry.list_jobs()] == ["mine"]
    with pytest.raises(NotPermittedError, match="theirs is the job of another user"):
        registry.find("theirs")
    for text in ("{", "[]", "{}", '{"name": 1}', "null"):
        (state / "jobs/torn/state.json").write_text(text)
        with pytest.raises(JobError, match="damaged"):
            registry.find("torn")


def test_where_jobs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORPOR_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/user")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert places.state_directory() == Path("/var/lib/torpor")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert places.state_directory() == Path("/home/user/.local/state/torpor")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert places.state_directory() == Path("/elsewhere/torpor")


def test_a_lock_ends_with_its_holder_and_is_asked_for_without_being_taken(state: Path) -> None:
    program = (
        "import sys\nfrom torpor.engine.jobs import locks\n"
        "with locks.held('one', 'restored'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    line = [sys.executable, "-c", program]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert locks.holder("one") == f"restored by pid {holder.pid}"
        with pytest.raises(JobError, match=f"one is being restored by pid {holder.pid}"), locks.held("one", "removed"):
            pass
        holder.kill()
        holder.wait()
    assert locks.holder("one") == ""
    with locks.held("one", "removed"):
        assert locks.holder("one") == f"removed by pid {os.getpid()}"
    assert [each.name for each in (state / "locks").iterdir()] == [".spare"]


def test_a_lock_can_be_had_where_no_file_can_be_made(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: os.PathLike[str] | str, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT and not os.path.lexists(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left"), locks.held("one", "removed"):
            pass
    with locks.held("one", "started"):
        pass
    monkeypatch.setattr(os, "open", full)
    for name in ("one", "two", "one"):
        with locks.held(name, "removed"):
            assert locks.holder(name) == f"removed by pid {os.getpid()}"
            with pytest.raises(JobError, match="is being removed"), locks.held(name, "pruned"):
                pass
        assert [each.name for each in (state / "locks").iterdir()] == [".spare"]


def test_what_a_dead_holder_was_making_is_waited_for() -> None:
    """A watcher that it had just forked has the lock too, until it closes what it does not need."""
    program = (
        "import os, sys\nfrom torpor.engine.jobs import locks\n"
        "with locks.held('one', 'restored'):\n"
        "    if not os.fork():\n        os.read(0, 1)\n        os._exit(0)\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    line = [sys.executable, "-c", program]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait()
        assert locks.holder("one") == f"restored by pid {holder.pid}"
        later = threading.Timer(0.2, os.write, (holder.stdin.fileno(), b"x"))
        later.start()
        with locks.held("one", "removed"):
            assert locks.holder("one") == f"removed by pid {os.getpid()}"
        later.join()


def test_who_has_just_taken_it_says_so_in_a_moment(state: Path) -> None:
    """Between the lock and its line of text lie two system calls: nobody is told "worked on" for them."""
    (state / "locks").mkdir()
    with (state / "locks" / "one").open("wb", buffering=0) as holder:
        fcntl.fcntl(holder, fcntl.F_OFD_SETLK, locks.WHOLE_FILE)
        later = threading.Timer(0.2, lambda: holder.write(b"restored by pid 1\n"))
        later.start()
        with pytest.raises(JobError, match="one is being restored by pid 1"), locks.held("one", "removed"):
            pass
        later.join()


def _note(**others: object) -> bytes:
    made = json.loads(note.encode(note.make("one", ("a", "b"), 1.0, Path("/log"), "test")))
    return json.dumps(made | others).encode()


def test_a_note_says_what_it_said() -> None:
    made = note.make("one", ("a", "b"), 1.0, Path("/log"), "test")
    assert note.decode(note.encode(made), "x") == made


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b"{}", b"[" * 10000, _note(name="../x"), _note(name=1), _note(command="x" * 5000),
        _note(command=[1]), _note(log="relative"), _note(log="/a\0b"), _note(id="x"), _note(made="now"),
        _note(host=None), _note(command=None),
    ],
)  # fmt: skip
def test_a_note_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        note.decode(data, "x")


def test_what_was_left_half_made_is_swept_and_numbers_are_not_given_again(state: Path) -> None:
    about = note.make("one", ("x",), 1.0, Path("/log"), "test")
    first = generations.begin("one")
    first.images.mkdir()
    first.commit(about)
    torn = generations.begin("one")
    torn.images.mkdir()
    assert [each.number for each in generations.list_of("one")] == [1]
    second = generations.begin("one")
    assert not torn.images.exists() and second.number == 2
    second.images.mkdir()
    second.commit(about)
    generations.tag(generations.find("one", "2"), "good")
    with pytest.raises(JobError, match="cannot be a tag"):
        generations.tag(generations.find("one"), "12")
    generations.remove(generations.find("one", "good"))
    assert generations.begin("one").number == 3
    assert sorted(os.listdir(state / "checkpoints/one")) == [".last", "1", "3"]
