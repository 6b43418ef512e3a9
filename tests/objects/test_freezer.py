"""Freezers of control groups: a tree is stopped by one, met frozen or not, and the group is left as it was met."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness import cgroups, engine
from harness.events import time_limit_s
from harness.workload import Workload

pytestmark = pytest.mark.root

#: The hierarchy, the file, what it says when thawed and when frozen.
FREEZERS = [
    pytest.param(("freezer", "freezer.state", "THAWED", "FROZEN"), id="v1"),
    pytest.param(("", "cgroup.freeze", "0", "1"), id="v2"),
]
Freezer = tuple[str, str, str, str]


def _set(path: Path, freezer: Freezer, frozen: bool) -> None:
    (path / freezer[1]).write_text(freezer[3 if frozen else 2])
    # v1 has to be asked until it says so; v2's tasks are stopped by their next step at the latest.
    while frozen and (path / freezer[1]).read_text().strip() == "FREEZING":
        os.sched_yield()


def _is_frozen(path: Path, freezer: Freezer) -> bool:
    return (path / freezer[1]).read_text().strip() not in (freezer[2], "")


@pytest.mark.parametrize("stopped", [False, True], ids=["going", "stopped"])
@pytest.mark.parametrize("frozen", [False, True], ids=["thawed", "frozen"])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_freezer_is_left_as_it_was_met(freezer: Freezer, frozen: bool, stopped: bool) -> None:
    with cgroups.group(freezer[0]) as path:
        with Workload.start("family", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            if stopped:
                os.kill(workload.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, workload.pid, os.WSTOPPED)
            _set(path, freezer, frozen)
            workload.dump(leave_running=True, options=["--freeze-cgroup", str(path)])
            assert _is_frozen(path, freezer) == frozen
            _set(path, freezer, False)
            if stopped:
                os.kill(workload.pid, signal.SIGCONT)
            workload.expect_pass()


@pytest.mark.parametrize("frozen", [False, True], ids=["thawed", "frozen"])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_tree_stopped_by_a_freezer_is_restored(freezer: Freezer, frozen: bool) -> None:
    with cgroups.group(freezer[0]) as path:
        with Workload.start("threads", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            _set(path, freezer, frozen)
            workload.dump(options=["--freeze-cgroup", str(path), "--manage-cgroups"])
            cgroups.remove(path)
            workload.restore(options=["--manage-cgroups"])
            # Of v1, the state is in the image, as CRIU has it.
            assert _is_frozen(path, freezer) == (frozen and freezer[0] == "freezer")
            _set(path, freezer, False)
            workload.expect_pass()


@pytest.mark.parametrize("freezer", FREEZERS)
def test_only_some_of_the_tree_may_be_in_the_group(freezer: Freezer) -> None:
    with cgroups.group(freezer[0]) as path:
        with Workload.start("family") as workload:
            workload.wait_ready()
            (path / "cgroup.procs").write_text(str(workload.processes()[-1]))
            workload.dump(options=["--freeze-cgroup", str(path), "--manage-cgroups=ignore"])
            workload.restore()
            workload.expect_pass()


@pytest.mark.parametrize("frozen", [False, True], ids=["thawed", "frozen"])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_freezer_is_as_it_was_met_when_the_dumper_is_killed(freezer: Freezer, frozen: bool, tmp_path: Path) -> None:
    """An action script kills the dumper while it holds the tree."""
    script = tmp_path / "kill"
    kill = "kill -9 $PPID"
    script.write_text(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] && {kill}\nexit 0\n')
    script.chmod(0o755)
    with cgroups.group(freezer[0]) as path:
        with Workload.start("counter", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            _set(path, freezer, frozen)
            options = ["--freeze-cgroup", str(path), "--action-script", str(script)]
            with pytest.raises(engine.EngineError) as failed:
                engine.dump(workload.pid, workload.images, leave_running=True, options=options)
            assert failed.value.returncode == -signal.SIGKILL
            if frozen:
                _wait_frozen(path, freezer)
                _set(path, freezer, False)
            assert not _is_frozen(path, freezer)
            workload.expect_pass()


def _wait_frozen(path: Path, freezer: Freezer) -> None:
    """The one that outlives the dumper needs an instant for it."""
    script = f'until grep -q "^{freezer[3]}" "$0"; do :; done'
    subprocess.run(["sh", "-c", script, str(path / freezer[1])], check=True, timeout=time_limit_s(10))


@pytest.mark.parametrize("freezer", FREEZERS)
def test_what_cannot_be_thawed_is_refused(freezer: Freezer) -> None:
    with cgroups.group(freezer[0]) as path:
        (path / "inner").mkdir()
        with Workload.start("counter", prefix=cgroups.entering(path / "inner")) as workload:
            workload.wait_ready()
            _set(path, freezer, True)
            with pytest.raises(engine.EngineError, match="by a control group above it"):
                engine.dump(workload.pid, workload.images, options=["--freeze-cgroup", str(path / "inner")])
            _set(path, freezer, False)
            workload.expect_pass()


@pytest.mark.parametrize("stopped", [False, True], ids=["going", "stopped"])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_task_is_refused_unless_its_freezer_is_named(freezer: Freezer, stopped: bool) -> None:
    with cgroups.group(freezer[0]) as path:
        with Workload.start("counter", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            if stopped:
                os.kill(workload.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, workload.pid, os.WSTOPPED)
            _set(path, freezer, True)
            _wait_all_frozen(path, freezer)
            with pytest.raises(engine.EngineError, match="is frozen by the control group"):
                engine.dump(workload.pid, workload.images)
            _set(path, freezer, False)
            os.kill(workload.pid, signal.SIGCONT)
            workload.expect_pass()


def _wait_all_frozen(path: Path, freezer: Freezer) -> None:
    if not freezer[0]:
        script = 'until grep -q "^frozen 1" "$0"; do :; done'
        subprocess.run(["sh", "-c", script, str(path / "cgroup.events")], check=True, timeout=time_limit_s(10))


def test_what_is_no_freezer_is_refused(tmp_path: Path) -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        for path in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(engine.EngineError, match="--freeze-cgroup wants"):
                engine.dump(workload.pid, workload.images, options=["--freeze-cgroup", str(path)])
        workload.expect_pass()


@pytest.mark.parametrize("freezer", FREEZERS)
def test_who_waits_in_vfork_is_waited_for(freezer: Freezer) -> None:
    with cgroups.group(freezer[0]) as path:
        with Workload.start("in_vfork", prefix=cgroups.entering(path)) as workload:
            workload.wait_ready()
            workload.dump(options=["--freeze-cgroup", str(path)])
            workload.restore()
            workload.expect_pass()
