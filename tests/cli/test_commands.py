"""The two commands as their users call them, on a process that does nothing."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.events import RenameWatch, time_limit_s
from torpor.engine import jobs
from torpor.engine.jobs import generations

pytestmark = pytest.mark.root
CRIU = [sys.executable, "-m", "torpor.cli.criu.main"]
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["sleep", "1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    yield process
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def run(*line: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*map(str, line)]
    limit_s = time_limit_s(120)
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit_s, check=False
    )


def _hook(path: Path, text: str, head: str = "#!/bin/sh\n") -> str:
    """An executable script."""
    path.write_text(head + text)
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("case", ["nothing", "no interpreter", "not executable", "relative"])
def test_scripts_are_executed_and_no_shell_is_between(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, case: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    script = _hook(tmp_path / "my hook", f'echo "$CRTOOLS_IMAGE_DIR|$0|$#|$FOO" > {tmp_path}/told\n', head="")
    if case == "nothing":
        script = f"touch {tmp_path}/told"
    if case == "not executable":
        os.chmod(script, 0o600)
    line = [*CRIU, "dump", "-t", str(sleeper.pid), "-D", "images", "-W", ".", "-R", "--action-script"]
    line.append("./my hook" if case == "relative" else script)
    environment = {**os.environ, "FOO": "bar"}
    done = subprocess.run(
        line, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path, env=environment, check=False
    )
    if case in ("nothing", "not executable"):
        assert done.returncode == 1 and f"action script {script} cannot be run at pre-dump" in done.stderr
        assert not (tmp_path / "told").exists()
        return
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "told").read_text() == f"{images}|{line[-1]}|0|bar\n"


def test_criu_runs_scripts_writes_the_pid_and_ends_as_the_root_does(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    actions, bell = tmp_path / "actions", tmp_path / "bell"
    os.mkfifo(bell)
    script = f"echo $CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID >> {actions}; "
    script += f"[ $CRTOOLS_SCRIPT_ACTION != post-resume ] || echo > {bell}"
    options = ["-D", str(tmp_path), "-v4", "--action-script", _hook(tmp_path / "a hook; exit 1", script)]
    done = run(*CRIU, "dump", "-t", str(sleeper.pid), "-o", "dump.log", "--display-stats", *options)
    assert done.returncode == 0, done.stderr
    assert "Memory pages written:" in done.stdout
    assert sleeper.wait() == -signal.SIGKILL

    restoring = subprocess.Popen(
        [*CRIU, "restore", "-o", "restore.log", "--pidfile", "pid", *options], stdin=subprocess.DEVNULL
    )
    with open(bell, "r+b", buffering=0) as rung:
        assert select.select([rung], [], [], time_limit_s(60))[0], (tmp_path / "restore.log").read_text()
    assert (tmp_path / "pid").read_text() == str(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGTERM)
    assert restoring.wait() == 128 + signal.SIGTERM
    pid = f" {sleeper.pid}"
    assert [line.strip() for line in actions.read_text().splitlines()] == [
        f"pre-dump{pid}",
        f"post-dump{pid}",
        "pre-restore",
        f"post-restore{pid}",
        f"pre-resume{pid}",
        f"post-resume{pid}",
    ]


def test_a_script_that_says_no_stops_the_dump_and_harms_nobody(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    script = _hook(tmp_path / "no", '[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]')
    done = run(*CRIU, "dump", "-t", str(sleeper.pid), "-D", tmp_path, "-o", "log", "--action-script", script)
    assert done.returncode == 1
    assert "failed at post-dump" in (tmp_path / "log").read_text()
    assert sleeper.poll() is None


def test_a_script_that_says_no_when_all_runs_is_too_late(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    script = _hook(tmp_path / "no", '[ "$CRTOOLS_SCRIPT_ACTION" != post-resume ]')
    assert run(*CRIU, "dump", "-t", str(sleeper.pid), "-D", tmp_path, "-o", "log").returncode == 0
    sleeper.wait()
    done = run(*CRIU, "restore", "-d", "-D", tmp_path, "-o", "log", "--action-script", script)
    assert done.returncode == 0, done.stderr
    assert "failed at post-resume" in (tmp_path / "log").read_text()
    os.kill(sleeper.pid, 0)


def test_torpor_checks_checkpoints_inspects_and_restores(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid, nap = str(sleeper.pid), tmp_path / "nap"
    checked = run(*TORPOR, "check", pid).stdout.splitlines()
    assert checked.pop() == f"{pid}: nothing in the way"
    # The kernel tells of everything but this.
    assert all(line.startswith(f"{pid}: not looked at: whether it has confined itself by Landlock") for line in checked)
    done = run(*TORPOR, "checkpoint", pid, "-o", nap)
    assert done.returncode == 0, done.stderr
    assert "1 process" in done.stdout
    assert sleeper.wait() == -signal.SIGKILL
    told = json.loads(run(*TORPOR, "inspect", "--json", nap).stdout)
    assert [process["name"] for process in told["processes"]] == ["sleep"]
    assert told["needs"]["pids"] == [sleeper.pid]
    done = run(*TORPOR, "restore", nap)
    assert done.returncode == 0, done.stderr
    assert f"pid {pid}" in done.stdout


@pytest.mark.parametrize("line", [["check", "0999999999"], ["inspect", "/nowhere"], ["checkpoint", "999999999"]])
def test_torpor_says_what_is_wrong_in_one_line(line: list[str]) -> None:
    done = run(*TORPOR, *line)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("torpor: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&- 2>&-", "<&-", "2>&-"])
def test_criu_starts_with_standard_streams_closed(closed: str) -> None:
    line = f'exec "$0" -m torpor.cli.criu.main --version {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Version: 4.2")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_torpor_works_with_standard_streams_closed(
    closed: str, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    for words in (["checkpoint", str(sleeper.pid), "-o", str(tmp_path / "nap")], ["restore", str(tmp_path / "nap")]):
        line = ["sh", "-c", f'exec "$0" "$@" {closed}', *TORPOR, *words]
        done = subprocess.run(line, stdout=subprocess.DEVNULL, timeout=time_limit_s(60), check=False)
        assert done.returncode == 0
        if words[0] == "checkpoint":
            assert sleeper.wait() == -signal.SIGKILL
    os.kill(sleeper.pid, 0)


@pytest.mark.parametrize("out", ["> /dev/full", "| true"])
def test_what_is_done_is_no_failure_because_nobody_hears_of_it(
    out: str, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    for words in (["checkpoint", str(sleeper.pid), "-o", str(tmp_path / "nap")], ["restore", str(tmp_path / "nap")]):
        line = ["bash", "-c", f'"$0" "$@" {out}; exit ${{PIPESTATUS[0]}}', *TORPOR, *words]
        done = run(*line)
        assert done.returncode == 0, done.stderr
        assert ("this is done" in done.stderr) == ("full" in out)
        if words[0] == "checkpoint":
            assert sleeper.wait() == -signal.SIGKILL
    os.kill(sleeper.pid, 0)


@pytest.mark.parametrize("out", ["> /dev/full", "| true", ">&-", "> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_so_it_is_with_what_is_done_to_checkpoints(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))

    def torpor(*words: str) -> str:
        line = ["bash", "-c", f'"$0" "$@" {out}; exit ${{PIPESTATUS[0]}}', *TORPOR, *words]
        done = run(*line)
        assert done.returncode == 0, (words, done.stderr)
        return str(done.stderr)

    def left() -> list[str]:
        return [f"{each.number}{''.join(each.tags)}" for each in generations.list_of("nap")]

    torpor("run", "-d", "--name", "nap", "--", "sleep", "1000")
    for _ in range(4):
        torpor("checkpoint", "--leave-running", "nap")
    torpor("tag", "nap@3", "good")
    torpor("tag", "--json", "nap@4", "other")
    torpor("tag", "--remove", "--json", "nap@other")
    assert left() == ["1", "2", "3good", "4"]
    said = torpor("rm", "nap@1")
    assert ("nap@1 removed" in said) == (out == "> /dev/full")
    said = torpor("prune", "--keep-last", "1")
    assert ("nap@2 removed\n1 checkpoints" in said) == (out == "> /dev/full")
    assert left() == ["3good", "4"]
    torpor("survive", "nap")
    torpor("survive", "--save")
    assert jobs.find("nap").status == jobs.CHECKPOINTED
    torpor("survive", "--restore")
    assert jobs.find("nap").status == jobs.RUNNING
    torpor("survive", "--remove", "nap")
    torpor("kill", "--remove", "nap")
    torpor("restore", "nap")
    torpor("kill", "nap")
    torpor("kill", "nap")
    torpor("rm", "--all", "--json", "nap")
    assert jobs.list_jobs() == []


def test_a_restore_that_fails_leaves_the_pid_file_as_it_was(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    images, pid_file, seen = tmp_path / "images", tmp_path / "pid", tmp_path / "seen"
    images.mkdir()
    assert run(*CRIU, "dump", "-t", str(sleeper.pid), "-D", images).returncode == 0
    sleeper.wait()
    text = f'[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ] || {{ cat {pid_file} > {seen}; {{}} }}\n'
    line = [*CRIU, "restore", "-d", "-D", str(images), "--pidfile", str(pid_file), "--action-script"]
    says_no = _hook(tmp_path / "no", text.replace("{}", "exit 1;"))
    renames = RenameWatch(tmp_path)
    assert run(*line, says_no).returncode != 0
    assert renames.take_names() == ["pid"], "whoever waits for a new one may find it empty"
    renames.close()
    assert seen.read_text() == str(sleeper.pid) and not pid_file.exists()
    pid_file.write_text("an earlier one, of more bytes\n")
    pid_file.chmod(0o600)
    before = pid_file.stat()
    assert run(*line, says_no).returncode != 0
    after = pid_file.stat()
    assert pid_file.read_text() == "an earlier one, of more bytes\n"
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    other = _hook(tmp_path / "other", text.replace("{}", f"rm {pid_file}; echo other > {pid_file}; exit 1;"))
    pid_file.unlink()
    assert run(*line, other).returncode != 0
    assert pid_file.read_text() == "other\n"
    done = run(*line, _hook(tmp_path / "yes", text.replace("{}", "")))
    assert done.returncode == 0, done.stderr
    assert pid_file.read_text() == seen.read_text() == str(sleeper.pid)
    assert not [*tmp_path.glob(".pid*")]
    os.kill(sleeper.pid, 0)


def test_a_program_that_ran_has_not_failed_because_nothing_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    line = ["bash", "-c", '"$0" "$@" > /dev/full', *TORPOR, "run", "--name", "talker", "--"]
    done = run(*line, "bash", "-c", f"head -c 3000000 /dev/zero; echo end; touch {tmp_path}/ran; exit 7")
    assert done.returncode == 7 and (tmp_path / "ran").exists(), done.stderr
    assert done.stderr.count("standard output takes no more") == 1
    assert run(*TORPOR, "logs", "talker").stdout == "\0" * 3_000_000 + "end\n"


def test_what_criu_did_is_no_failure_because_its_statistics_cannot_be_shown(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    line = ["bash", "-c", '"$0" "$@" > /dev/full', *CRIU]
    done = run(*line, "dump", "-t", str(sleeper.pid), "-D", str(tmp_path), "--display-stats")
    assert done.returncode == 0 and sleeper.wait() == -signal.SIGKILL, done.stderr
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "stats-restore").mkdir()  # it cannot be written, nor read
    done = run(*line, "restore", "-d", "-D", str(tmp_path), "-W", str(tmp_path / "work"), "--display-stats")
    assert done.returncode == 0, done.stderr
    os.kill(sleeper.pid, 0)


def test_what_is_gone_is_told_before_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    run(*TORPOR, "run", "-d", "--name", "nap", "--", "sleep", "1000")
    run(*TORPOR, "checkpoint", "nap")
    done = run(*TORPOR, "rm", "--all", "--force", "nap", "none")
    assert done.returncode == 1 and "nap@1 removed" in done.stdout and "no job called none" in done.stderr, done


def test_names_of_any_bytes_are_shown_and_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "TORPOR_STATE": str(tmp_path / "state")}
    name = b"\x1b]0;evil\x07\xff"
    (tmp_path / "s").write_text('printf x > "$1"; exec 3< "$1" 4> "dir$1/x"; cd "dir$1"; read x < /dev/zero')
    (tmp_path / "dir\x1b]0;evil\x07\udcff").mkdir()

    def torpor(*words: "str | bytes | Path") -> bytes:
        done = subprocess.run(
            [*TORPOR, *words], capture_output=True, env=environment, cwd=tmp_path, timeout=time_limit_s(60), check=False
        )
        said = done.stdout + done.stderr
        assert b"bug" not in said and b"\x1b" not in said and b"\xff" not in said, said
        assert done.returncode == (words[0] == b"verify")
        return said

    torpor("run", "--name", "odd", "-d", "--", "sh", "s", name)
    try:
        deadline = time.monotonic() + time_limit_s(20)
        while not (tmp_path / "dir\x1b]0;evil\x07\udcff" / "x").exists():  # it has opened all by then
            assert time.monotonic() < deadline
        assert b"udcff" in torpor("ps")
        torpor("check", "odd")
        torpor("checkpoint", "odd")
        assert b"udcff" in torpor("inspect", "odd@1", "--files")
        assert json.loads(torpor("inspect", "odd@1", "--json"))["processes"]
        torpor("restore", "odd")
        torpor(b"verify", name)
    finally:
        torpor("kill", "odd", "-s", "KILL")


def test_names_in_images_are_those_of_the_kernel_in_every_locale(tmp_path: Path) -> None:
    """Python's encoding of names is ASCII in the one that the restore has."""
    images, directory = tmp_path / "images", tmp_path / "\xe9"
    images.mkdir()
    directory.mkdir()
    null = subprocess.DEVNULL
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    sleeper = subprocess.Popen(
        ["sleep", "1000"], stdin=null, stdout=null, stderr=null, start_new_session=True, cwd=directory
    )
    try:
        done = run(*CRIU, "dump", "-t", str(sleeper.pid), "-D", images, "-o", "dump.log")
        assert done.returncode == 0 and sleeper.wait() == -signal.SIGKILL
        line = [*CRIU, "restore", "-d", "-D", str(images), "-o", "restore.log"]
        restored = subprocess.run(line, env=environment, timeout=time_limit_s(60), check=False)
        assert restored.returncode == 0, (images / "restore.log").read_text()
        assert os.readlink(f"/proc/{sleeper.pid}/cwd") == str(directory)
    finally:
        with suppress(ProcessLookupError):
            os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.poll()


@pytest.mark.parametrize("name", ["fifo", "device", "directory"])
@pytest.mark.parametrize("command", ["restore", "inspect"])
def test_what_is_no_file_is_not_waited_for(command: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    elif name == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
        for inner in (
            "torpor-container.json",
            "inventory.img",
            "config.dump",
            "torpor.manifest",
            "torpor-job.json",
        ):
            os.mkfifo(path / inner)
    done = run(*TORPOR, command, path)
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--config", "FIFO"),
        ("check", "--config=FIFO"),
        ("dump", "-t", "PID", "-D", "IMAGES", "--cgroup-props-file", "FIFO"),
        ("dump", "-t", "PID", "-D", "IMAGES", "-o", "FIFO"),
        ("dump", "-t", "PID", "-D", "FIFO"),
        ("dump", "-t", "PID", "-D", "IMAGES", "-W", "FIFO"),
        ("dump", "-t", "PID", "-D", "IMAGES", "--action-script", "FIFO"),
        ("restore", "-D", "FIFO"),
        ("restore", "-D", "IMAGES", "--pidfile", "FIFO"),
        ("service", "--address", "IMAGES/socket", "-o", "FIFO"),
        ("service", "--address", "FIFO"),
    ],
    ids=lambda words: words[0] + words[-2],
)
def test_a_fifo_that_the_caller_names_is_not_waited_for(
    words: "tuple[str, ...]", sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    fifo, images = tmp_path / "fifo", tmp_path / "images"
    os.mkfifo(fifo)
    images.mkdir()
    line = [
        word.replace("FIFO", str(fifo)).replace("IMAGES", str(images)).replace("PID", str(sleeper.pid))
        for word in words
    ]
    done = run(*CRIU, *line)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert sleeper.poll() is None


def test_a_configuration_may_come_through_a_pipe_of_the_shell() -> None:
    line = '"$0" -m torpor.cli.criu.main check --config <(echo "no-such-option")'
    done = run("bash", "-c", line, sys.executable)
    assert done.returncode == 2 and "no-such-option" in done.stderr
    assert run(*CRIU, "check", "--config", "/dev/null").returncode == 0


def test_what_lies_in_the_images_directory_leads_nowhere(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A log, a pid file: links by these names that whoever made the directory left there, and a FIFO."""
    target = tmp_path / "target"
    target.write_text("mine")
    images = tmp_path / "images"
    images.mkdir()
    done = run(*CRIU, "dump", "-t", str(sleeper.pid), "-D", images, "-o", "dump.log", "--leave-running")
    assert done.returncode == 0
    for name in ("restore.log", "pid"):
        (images / name).symlink_to(target)
    os.mkfifo(images / "fifo")
    for log in ("restore.log", "fifo"):
        done = run(*CRIU, "restore", "-d", "-D", images, "-o", log)
        assert done.returncode == 1 and "log file" in done.stderr
    sleeper.kill()
    sleeper.wait()
    done = run(*CRIU, "restore", "-d", "-D", images, "--pidfile", "pid", "-o", "fine.log")
    assert done.returncode == 1 and "pid file pid" in (images / "fine.log").read_text()
    assert target.read_text() == "mine"
    assert not os.path.exists(f"/proc/{sleeper.pid}")
    os.rename(images / "pstree.img", images / "kept")
    os.mkfifo(images / "pstree.img")
    for words in ([*CRIU, "restore", "-d", "-D"], [*TORPOR, "restore"], [*TORPOR, "inspect"]):
        assert run(*words, images).returncode == 1
