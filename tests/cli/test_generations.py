"""Checkpoints of jobs, one beside the other, as a user calls the commands."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import torpor as torpor_api
from harness.events import time_limit_s
from harness.generations import inner_pid
from harness.rounds import rounds
from torpor.cli import torpor
from torpor.engine import jobs
from torpor.engine.jobs import generations, note
from torpor.images import pack

pytestmark = pytest.mark.root
PROGRAM = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.02; done"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of the test's own; what runs in it is killed at the end."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    yield tmp_path / "state"
    _kill_all()


def _kill_all() -> None:
    for job in jobs.list_jobs():
        if job.status == jobs.RUNNING:
            jobs.kill(job, signal.SIGKILL)


def _run(*words: str | Path) -> None:
    assert torpor.main([str(word) for word in words]) == 0


def _start(name: str = "clock", program: str = PROGRAM) -> None:
    _run("run", "--name", name, "-d", "--", "sh", "-c", program)
    _wait_count(name, 2)


def _wait_count(name: str, count: int) -> None:
    """Until the job has written *count*."""
    seen = b""
    for chunk in jobs.follow_log(jobs.find(name), follow=True):
        seen += chunk
        if any(int(line) >= count for line in seen.split()):
            return
    raise AssertionError(f"{name} has ended after {seen[-20:]!r}")


def _last(name: str) -> int:
    return int(jobs.find(name).log.read_bytes().split()[-1])


def test_a_second_checkpoint_is_a_second_one(capsys: pytest.CaptureFixture[str]) -> None:
    _start()
    _run("checkpoint", "clock", "--leave-running")
    first = _last("clock")
    _wait_count("clock", first + 20)
    _run("checkpoint", "clock")
    second = _last("clock")
    capsys.readouterr()
    _run("checkpoints", "--json", "clock")
    told = json.loads(capsys.readouterr().out)
    assert [each["checkpoint"] for each in told] == ["clock@1", "clock@2"]
    assert all(each["size_bytes"] > 50_000 and each["is_there"] for each in told)
    assert {each["host"] for each in told} == {os.uname().nodename}
    assert {each["kernel"] for each in told} == {os.uname().release}
    _run("tag", "clock@1", "before-upgrade")
    _run("restore", "clock@before-upgrade", "--name", "old")
    _run("restore", "clock")
    for name, count in (("old", first), ("clock", second)):
        _wait_count(name, count + 5)
    assert min(map(int, jobs.find("old").log.read_bytes().split())) <= first + 1 < second


def test_a_checkpoint_outlives_its_job_and_its_log(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _start()
    _run("checkpoint", "clock", "--leave-running")
    _run("kill", "--remove", "clock")
    assert not (state / "jobs" / "clock").exists()
    capsys.readouterr()
    _run("ps")
    assert "clock  ended" in capsys.readouterr().out
    _run("restore", "clock")
    assert jobs.find("clock").status == jobs.RUNNING
    _wait_count("clock", 3)


@pytest.mark.parametrize("suffix", [".tar.zst", ".tar.gz", ".tar"])
def test_an_archive_becomes_the_job_again_elsewhere(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / f"clock{suffix}"
    _start()
    _run("checkpoint", "clock", "-o", archive)
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == [archive.name]
    capsys.readouterr()
    _run("inspect", archive)
    assert "sh -c" in capsys.readouterr().out
    _run("restore", "clock")
    _run("kill", "clock")
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "elsewhere"))
    try:
        _run("restore", archive)
        job = jobs.find("clock")
        assert job.status == jobs.RUNNING and job.command == ("sh", "-c", PROGRAM)
        assert job.log == tmp_path / "elsewhere/jobs/clock/log"
        _wait_count("clock", 3)
        assert list((tmp_path / "elsewhere/unpacked").iterdir()) == []
        assert torpor.main(["restore", str(archive)]) == 1
        assert "runs already" in capsys.readouterr().err
        _run("restore", archive, "--copies", "2", "--new-network")
        assert {each.name for each in jobs.list_jobs()} == {"clock", "clock1", "clock2"}
    finally:
        _kill_all()


def test_a_directory_takes_one_checkpoint_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "nap"
    _start()
    for _ in range(3):
        _run("checkpoint", "clock", "-o", place)
        assert jobs.find("clock").status == jobs.CHECKPOINTED
        _run("restore", "clock")
    assert torpor.main(["restore", "clock@1", "--name", "other"]) == 1
    assert f"clock@1 was written to {place}, where something else lies" in capsys.readouterr().err
    place.rename(tmp_path / "moved")
    assert torpor.main(["restore", "clock", "--name", "other"]) == 1
    assert "which is gone" in capsys.readouterr().err
    _run("restore", tmp_path / "moved", "--name", "other")
    assert jobs.find("other").status == jobs.RUNNING
    _run("rm", "clock@1", "clock@2", "clock@3")
    assert (tmp_path / "moved/inventory.img").exists()


def test_what_is_not_kept_is_removed_and_what_is_slept_in_stays(capsys: pytest.CaptureFixture[str]) -> None:
    _start()
    for _ in range(4):
        _run("checkpoint", "clock", "--leave-running")
    _run("tag", "clock@1", "first")
    _run("checkpoint", "clock")
    _run("prune", "--keep-last", "2")
    assert [each.number for each in generations.list_of("clock")] == [1, 4, 5]
    assert torpor.main(["rm", "clock@5"]) == 1
    assert torpor.main(["rm", "clock"]) == 2
    err = capsys.readouterr().err
    assert "clock sleeps in clock@5" in err and "clock@1, clock@4, clock@5" in err
    _run("rm", "clock@4")
    _run("rm", "--force", "clock@5")
    assert jobs.find("clock").status == jobs.ENDED
    _run("restore", "clock@first")
    _run("checkpoint", "clock")
    assert [each.number for each in generations.list_of("clock")] == [1, 6], "a number is never given twice"
    assert torpor.main(["rm", "--all", "clock"]) == 1
    _run("rm", "--all", "--force", "clock")
    assert jobs.list_jobs() == []
    assert torpor.main(["restore", "clock"]) == 1


def test_somebody_at_work_on_a_job_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    _start()
    _run("checkpoint", "clock")
    with jobs.locks.held("clock", "restored"):
        for line in (
            ["restore", "clock"],
            ["kill", "clock"],
            ["rm", "clock@1"],
            ["prune", "--keep-last", "1", "clock"],
        ):
            assert torpor.main(line) == 1
            assert f"clock is being restored by pid {os.getpid()}" in capsys.readouterr().err
        _run("ps")
        _run("restore", "clock", "--name", "copy")
    _run("restore", "clock")
    assert jobs.find("clock").status == jobs.find("copy").status == jobs.RUNNING


def test_of_several_at_once_one_restores_and_the_others_say_who_does() -> None:
    _start(program=f"{PROGRAM} # {uuid.uuid4()}")  # as no other process of the machine is called
    _run("checkpoint", "clock")
    line = [sys.executable, "-m", "torpor.cli.torpor", "restore", "clock"]
    others = [
        subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [(each.communicate(timeout=time_limit_s(60))[1], each.returncode) for each in others]
    assert sorted(code for _, code in told) == [0, 1, 1, 1]
    refused = [text for text, code in told if code]
    assert [text for text in refused if "is being restored by pid" not in text and "runs already" not in text] == []
    job = jobs.find("clock")
    command = Path(f"/proc/{job.pid}/cmdline").read_bytes()
    same = {int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _cmdline(pid) == command}
    # A child that is about to become `sleep` is called as its shell is.
    assert {pid for pid in same if pid == job.pid or _is_first(pid)} == {job.pid}
    line[-2:] = ["checkpoint", "clock"]
    others = [
        subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [(each.communicate(timeout=time_limit_s(60))[1], each.returncode) for each in others]
    assert sorted(code for _, code in told)[0] == 0
    assert jobs.find("clock").status == jobs.CHECKPOINTED
    assert len(generations.list_of("clock")) == 1 + [code for _, code in told].count(0)


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_first(pid: int) -> bool:
    """Whether it is the first process of its pid namespace, as a job is."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return inner_pid(pid) == 1
    return False


def test_copies_are_each_from_one_moment_while_checkpoints_go_on(tmp_path: Path) -> None:
    """Two counters in memory that are always alike; a copy says which it found, and whether they were."""
    program = (
        "import os, time\n"
        "a, b = bytearray(64 << 10), bytearray(64 << 10)\n"
        "while True:\n"
        "    n = (a[0] + 1) % 256\n"
        "    a[:] = bytes([n]) * len(a)\n"
        "    b[:] = bytes([n]) * len(b)\n"
        "    print(a[0], b[0], len(set(a)), len(set(b)), flush=True)\n"
        "    time.sleep(0.001)\n"
    )
    _run("run", "--name", "pair", "-d", "--", sys.executable, "-c", program)
    _run("checkpoint", "pair", "--leave-running")
    line = [sys.executable, "-m", "torpor.cli.torpor"]
    loop = f"for n in $(seq {rounds(3, 60)}); do {shlex.join(line)} checkpoint pair --leave-running || exit 1; done"
    with subprocess.Popen(["sh", "-c", loop], stdout=subprocess.DEVNULL) as checkpoints:
        n_copies = 0
        while checkpoints.poll() is None or n_copies < rounds(3, 200):
            assert torpor.main(["restore", "pair", "--name", "copy"]) == 0
            copy = jobs.find("copy")
            for chunk in jobs.follow_log(copy, follow=True):
                if chunk.count(b"\n") > 2:
                    break
            jobs.kill(copy, signal.SIGKILL)
            # Between writing the two they differ for a moment; the numbers that a copy goes on with do not.
            # The last line is cut where a page of the log ends, if that is where it was killed.
            for told in copy.log.read_bytes().split(b"\n")[1:-1]:
                first, second, *each = map(int, told.split())
                assert first == second and each == [1, 1]
            n_copies += 1
        assert checkpoints.returncode == 0
    assert jobs.find("pair").status == jobs.RUNNING


def test_the_state_directory_may_be_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORPOR_STATE", "state")
    _start()
    _run("checkpoint", "clock")
    _run("restore", "clock")
    monkeypatch.chdir("/")
    assert [job.status for job in jobs.list_jobs()] == [jobs.RUNNING]


@pytest.mark.parametrize(
    ("command", "why"), [("there-is-none", "No such file or directory"), ("/etc/passwd", "Permission denied")]
)
def test_a_command_that_cannot_be_run(command: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert torpor.main(["run", "-d", "--name", "none", "--", command]) == 1
    assert capsys.readouterr().err == f"torpor: {command} cannot be run as a job: {why}\n"
    assert jobs.list_jobs() == []


def test_what_cannot_be_noted_does_not_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state")

    monkeypatch.setattr(jobs.registry, "running", fail)
    mark = f"sleep {uuid.uuid4().int % 10**9 + 10**6}"
    assert torpor.main(["run", "-d", "--name", "none", "--", *mark.split()]) == 1
    assert "/state: no space is left" in capsys.readouterr().err
    commands = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands.append(place.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
    assert mark not in commands and jobs.list_jobs() == []


def test_a_full_disk_is_named_and_made_room_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", small], check=True)
    try:
        monkeypatch.setenv("TORPOR_STATE", str(small))
        _start(program="sleep 1000 & echo 2; wait")
        for _ in range(2):
            _run("checkpoint", "clock", "--leave-running")
        with suppress(OSError), open(small / "fill", "wb", buffering=0) as fill:
            while fill.write(bytes(512)):
                pass
        capsys.readouterr()
        assert torpor.main(["run", "-d", "--name", "other", "--", "sleep", "1"]) == 1
        assert "no space is left" in (said := capsys.readouterr().err) and str(small) in said, said
        _run("rm", "clock@1")
        assert [each.number for each in generations.list_of("clock")] == [2]
        assert not list(small.rglob(".state.new"))
        _kill_all()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.parametrize("of", ["bytes", "inodes"])
def test_room_is_made_where_there_is_none_at_all(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,nr_inodes=300", "small", small], check=True)
    n_filled = 0

    def fill() -> None:
        nonlocal n_filled
        with suppress(OSError), open(small / "fill", "ab", buffering=0) as stream:
            while of == "bytes" and stream.write(bytes(512)):
                pass
        with suppress(OSError):
            while of == "inodes":
                os.close(os.open(small / f"fill-{n_filled}", os.O_CREAT | os.O_EXCL))
                n_filled += 1

    try:
        monkeypatch.setenv("TORPOR_STATE", str(small))
        _start(program="sleep 1000 & echo 2; wait")
        for _ in range(3):
            _run("checkpoint", "clock", "--leave-running")
        fill()
        assert torpor.main(["tag", "clock@3", "last"]) == (1 if of == "inodes" else 0)
        _run("prune", "--keep-last", "2", "clock")
        fill()
        _run("rm", "clock@2")
        assert [each.number for each in generations.list_of("clock")] == [3]
        _run("kill", "clock")
        _run("restore", "clock@3")
        for path in small.glob("fill*"):
            path.unlink()
        _run("checkpoint", "clock")
        fill()
        _run("rm", "--force", "clock@4")
        assert jobs.find("clock").status == jobs.ENDED
        _run("restore", "clock@3")
        fill()
        _run("kill", "--remove", "clock")
        fill()
        _run("rm", "--all", "clock")
        assert sorted(path.name for path in small.rglob("*") if not path.name.startswith("fill")) == [
            ".spare", "checkpoints", "jobs", "locks",
        ]  # fmt: skip
    finally:
        _kill_all()
        subprocess.run(["umount", "-l", small], check=True)


def test_what_is_being_read_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    _start()
    _run("checkpoint", "clock", "--leave-running")
    with generations.reading(generations.find("clock")):
        assert torpor.main(["rm", "clock@1"]) == 1
    assert "is being restored" in capsys.readouterr().err
    _run("rm", "clock@1")


def test_a_dump_that_fails_leaves_nothing_and_the_job_running(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _start()
    full = Path("/dev/full")
    _run("checkpoint", "clock", "--leave-running")
    assert torpor.main(["checkpoint", "clock", "-o", str(full / "x.tar")]) == 1
    assert torpor.main(["checkpoint", "clock", "-o", str(tmp_path / "state" / "jobs" / "clock" / "log")]) == 1
    job = jobs.find("clock")
    assert job.status == jobs.RUNNING and job.otherwise == ""
    _wait_count("clock", _last("clock") + 3)
    assert [each.number for each in generations.list_of("clock")] == [1]
    assert sorted(os.listdir(state / "checkpoints" / "clock")) == [".last", "1"]


@pytest.mark.parametrize("has_earlier", [True, False])
@pytest.mark.parametrize("when", ["made", "noted", "interrupted"])
def test_an_archive_stands_until_its_successor_does(
    when: str, has_earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, words = tmp_path / "kept" / "clock.tar", ("checkpoint", "clock", "--leave-running")
    place.parent.mkdir()
    _start()
    if has_earlier:
        _run(*words, "-o", place)
    before = [(each.name, each.read_bytes()) for each in place.parent.iterdir()]
    reached = []

    def fail(*_: object) -> None:
        reached.append(place.exists() and (place.name, place.read_bytes()) not in before)
        if when == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state")

    with monkeypatch.context() as patch:
        if when == "made":
            patch.setattr(pack._Plain, "close", fail)
        else:
            patch.setattr(*((jobs.registry, "save") if when == "noted" else (note, "write")), fail)
        assert torpor.main(["checkpoint", "clock", "-o", str(place)]) != 0
    assert reached == [when != "made"]
    assert [(each.name, each.read_bytes()) for each in place.parent.iterdir()] == before
    job = jobs.find("clock")
    assert job.status == jobs.RUNNING and [each.number for each in generations.list_of("clock")] == [1] * has_earlier
    _wait_count("clock", _last("clock") + 3)
    _run("checkpoint", "clock", "-o", place)
    assert len(list(place.parent.iterdir())) == 1
    count = _last("clock")
    _run("restore", "clock")
    _wait_count("clock", count + 3)


def test_a_number_is_not_given_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text

    def full(path: Path, text: str, **how: str) -> int:
        if path.name == ".last":
            real(path, "", **how)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, text, **how)

    _start()
    for _ in range(3):
        _run("checkpoint", "clock", "--leave-running")
    _run("rm", "clock@3", "clock@2")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert torpor.main(["checkpoint", "clock"]) == 1
    _run("checkpoint", "clock")
    assert [each.number for each in generations.list_of("clock")] == [1, 4]
    count = _last("clock")
    _run("restore", "clock")
    _wait_count("clock", count + 3)


def test_what_was_made_and_moved_at_once_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, place = jobs.checkpoint, tmp_path / "clock"

    def moved(*args: object, **options: object) -> object:
        made = real(*args, **options)  # type: ignore[arg-type]
        place.rename(tmp_path / "moved")
        return made

    _start()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "checkpoint", moved)
        _run("checkpoint", "clock", "-o", place)
    count = _last("clock")
    _run("restore", tmp_path / "moved")
    _wait_count("clock", count + 3)


@pytest.mark.parametrize("has_earlier", [True, False])
def test_an_archive_of_a_process_is_put_back(has_earlier: bool, tmp_path: Path) -> None:
    place, none = tmp_path / "nap.tar", subprocess.DEVNULL
    if has_earlier:
        place.write_bytes(b"earlier")
    with subprocess.Popen(
        ["sleep", "1000"], start_new_session=True, cwd="/", stdin=none, stdout=none, stderr=none
    ) as sleeper:
        try:

            def fail(_: str) -> None:
                assert place.read_bytes()[:7] != b"earlier"
                raise ValueError("late")

            with pytest.raises(ValueError, match="late"):
                torpor_api.dump(sleeper.pid, place, commit=fail)
            assert sleeper.poll() is None
            assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"earlier"] * has_earlier
            torpor_api.dump(sleeper.pid, place)
            sleeper.wait()
            os.kill(restored := torpor_api.restore(place), signal.SIGKILL)
            os.waitpid(restored, 0)
            assert not list(tmp_path.glob(".*"))
        finally:
            sleeper.kill()


def test_a_waiting_restore_ends_as_the_job_does() -> None:
    _run("run", "--name", "brief", "-d", "--", "sh", "-c", "read x < /dev/zero; exit 3")
    _run("checkpoint", "brief")
    _run("restore", "brief")
    assert jobs.kill(jobs.find("brief"), timeout_s=time_limit_s(10)).status == jobs.ENDED
