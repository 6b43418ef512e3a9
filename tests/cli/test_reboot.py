"""`torpor survive` and `torpor reboot` as a user calls them; a machine without systemd is left alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.compiler import compiled
from harness.events import time_limit_s

pytestmark = pytest.mark.root

Torpor = Callable[..., subprocess.CompletedProcess[str]]


#: Of another boot: earlier than the one before it (no more than a young machine has run), and later.
_SHIFTS_S = (-100, 5000)


@pytest.fixture
def torpor(tmp_path: Path) -> Torpor:
    """The command, with jobs of its own and no container engine."""
    environment = {**os.environ, "TORPOR_STATE": str(tmp_path / "state"), "TORPOR_PODMAN": "/nowhere/podman"}

    def run(*words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        line = [*before, sys.executable, "-m", "torpor.cli.torpor", *words]
        return subprocess.run(
            line,
            capture_output=True,
            text=True,
            timeout=time_limit_s(120),
            check=False,
            env=environment,
        )

    return run


def test_marks_are_made_listed_and_forgotten(torpor: Torpor) -> None:
    assert "nothing is marked" in torpor("survive").stdout
    for name in ("one", "two"):
        assert torpor("run", "-d", "--name", name, "--", "sleep", "1000").returncode == 0
    try:
        assert torpor("survive", "one").stdout == "job:one: marked\n"
        assert torpor("survive", "two", "--after", "one", "--timeout", "20", "--file-locks").returncode == 0
        (two, one) = json.loads(torpor("survive", "--json").stdout)["entries"]
        assert (one["target"], two["target"], two["after"], two["timeout_s"]) == ("job:one", "job:two", ["job:one"], 20)
        assert two["options"] == ["file-locks"]
        around = torpor("survive", "one", "--after", "two")
        assert around.returncode == 2 and "each would come after the other" in around.stderr
        assert torpor("survive", "--remove", "one").stdout == "job:one: not marked any more\n"
        assert torpor("survive", "--remove", "one").stdout == "job:one: was not marked\n"
        (two,) = json.loads(torpor("survive", "--json").stdout)["entries"]
        assert two["after"] == []
    finally:
        torpor("kill", "--remove", "one", "two")


def test_a_job_goes_to_sleep_and_wakes_and_its_older_checkpoint_goes(torpor: Torpor) -> None:
    torpor("run", "-d", "--name", "one", "--", "sleep", "1000")
    torpor("survive", "one")
    try:
        for number in (1, 2):
            assert "job:one: sleeps" in torpor("survive", "--save").stdout
            assert "checkpointed" in torpor("ps").stdout
            assert torpor("checkpoints", "-q", "one").stdout == f"one@{number}\n"
            assert "job:one: runs again" in torpor("survive", "--restore").stdout
            assert torpor("survive", "--restore").stdout == ""
    finally:
        torpor("kill", "--remove", "one")


def test_what_takes_too_long_runs_on(torpor: Torpor) -> None:
    torpor("run", "-d", "--name", "one", "--", "sleep", "1000")
    torpor("survive", "one", "--timeout", "0.001")
    try:
        saved = torpor("survive", "--save")
        assert saved.returncode == 1 and "job:one: NOT SAVED: it took longer than 0.001 s" in saved.stderr
        assert json.loads(torpor("ps", "--json").stdout)[0]["status"] == "running"
    finally:
        torpor("kill", "--remove", "one")


def test_at_shutdown_only_who_would_not_hear_of_it_is_ended(torpor: Torpor, tmp_path: Path) -> None:
    """systemd would wait for the first process of a job, which gets no SIGTERM without a handler, for 90 seconds."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho stopping\n")
    systemctl.chmod(0o755)
    ready, said = tmp_path / "ready", tmp_path / "said"
    os.mkfifo(ready)
    below = f"trap 'echo bye >{said}; exit' TERM; echo >{ready}; while :; do sleep 0.05; done"
    torpor("run", "-d", "--name", "deaf", "--", "sh", "-c", f"({below}) & exec sleep 1000")
    torpor("run", "-d", "--name", "hears", "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    torpor("run", "-d", "--name", "saved", "--", "sleep", "1000")
    torpor("survive", "saved")
    try:
        ready.read_text()
        words = ("survive", "--save", "--at-shutdown")
        done = torpor(*words, before=("env", f"TORPOR_SYSTEMCTL={systemctl}"))
        assert done.returncode == 0 and "job:saved: sleeps" in done.stdout
        assert "job:deaf: ended" in done.stdout and "job:hears" not in done.stdout
        assert said.read_text() == "bye\n"
        found = {job["name"]: job["status"] for job in json.loads(torpor("ps", "--all", "--json").stdout)}
        assert found == {"deaf": "ended", "hears": "running", "saved": "checkpointed"}
    finally:
        torpor("kill", "--remove", "deaf", "hears", "saved")


def test_a_job_goes_on_by_its_clocks_under_those_of_another_boot(torpor: Torpor, tmp_path: Path) -> None:
    """Absolute deadlines and timers, with clocks that are earlier and later than they were."""
    status = tmp_path / "status"
    program = [str(compiled("clocks")), "--status", str(status), "--dir", str(tmp_path), "--", "6"]
    torpor("run", "-d", "--name", "one", "--", *program)
    torpor("survive", "one")
    try:
        ready = f"while ! test -e {status}; do sleep 0.1; done"
        subprocess.run(
            ["sh", "-c", ready],
            timeout=time_limit_s(20),
            check=True,
        )
        clocks: list[str] = []
        for shift_s in _SHIFTS_S:
            assert torpor("survive", "--save", before=clocks).returncode == 0
            clocks = ["unshare", "--time", "--monotonic", str(shift_s), "--boottime", str(2 * shift_s), "--"]
            done = torpor("survive", "--restore", before=clocks)
            assert "job:one: runs again" in done.stdout, done.stderr
    finally:
        torpor("kill", "one")
    assert status.read_text() == "pass"


@pytest.mark.parametrize(
    "words",
    [
        ("survive", "--save", "one"), ("survive", "--dry-run"), ("survive", "--remove"), ("survive", "--timeout", "0"),
        ("survive", "--save", "--restore"), ("survive", str(os.getpid())), ("reboot", "--initrd", "x"),
    ],
)  # fmt: skip
def test_words_that_are_wrong(torpor: Torpor, words: tuple[str, ...]) -> None:
    done = torpor(*words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_a_machine_without_systemd_is_left_alone(torpor: Torpor) -> None:
    if Path("/run/systemd/system").is_dir():
        return
    done = torpor("reboot")
    assert done.returncode == 1 and "systemd is not init here" in done.stderr
    assert torpor("setup", "--survive-reboot", "--undo").stdout == "there were no units: nothing to undo\n"
