"""The harness itself: a workload that misbehaves is noticed and explained, and nothing of it is left."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import skips
from harness.engine import EngineError, dump
from harness.events import ProcessWatch, become_subreaper, time_limit_s
from harness.instants import Instants
from harness.workload import PASS, Workload, WorkloadError


def test_a_good_one_passes_and_leaves_nothing() -> None:
    with Workload.start("misbehaving") as workload:
        workload.wait_ready()
        assert workload.processes() == [workload.pid]
        assert os.readlink(f"/proc/{workload.pid}/fd/0") == "/dev/null"
        assert os.readlink(f"/proc/{workload.pid}/fd/2") == str(workload.log_file)
        assert os.getsid(workload.pid) == workload.pid
        # Three standard descriptors and nothing else: neither the harness nor workload.c leaves one open.
        assert sorted(os.listdir(f"/proc/{workload.pid}/fd")) == ["0", "1", "2"]
        assert workload.finish() == PASS
    assert not workload.base.exists()


def test_death_before_ready_is_noticed_with_its_log() -> None:
    with Workload.start("misbehaving", ["die-early"]) as workload:
        with pytest.raises(WorkloadError, match=r"(?s)did not become ready.*about to do: die-early"):
            workload.wait_ready()


def test_failure_before_ready_is_reported() -> None:
    with Workload.start("misbehaving", ["fail-early"]) as workload:
        with pytest.raises(WorkloadError, match="fail: failed with 42"):
            workload.wait_ready()


def test_death_instead_of_a_report_is_noticed() -> None:
    with Workload.start("misbehaving", ["die-late"]) as workload:
        workload.wait_ready()
        with pytest.raises(WorkloadError, match=r"(?s)ended without a report.*exit status .*: -9"):
            workload.finish()


def test_hanging_is_noticed_and_ended() -> None:
    with Workload.start("misbehaving", ["hang"]) as workload:
        workload.wait_ready()
        watch = ProcessWatch(workload.pid)
        with pytest.raises(WorkloadError, match="did not end within"):
            workload.finish(timeout_s=0.2)
    with watch:
        assert watch.has_ended()


def test_a_childs_failure_is_not_overwritten_by_its_parent() -> None:
    with Workload.start("misbehaving", ["fail-in-child"]) as workload:
        # Whether the child's or the parent's report comes first is left to the scheduler: both must end in a failure.
        try:
            workload.wait_ready()
        except WorkloadError as error:
            assert "the child failed" in str(error)


def test_a_daemon_is_found_and_ended() -> None:
    with Workload.start("misbehaving", ["leave-daemon"]) as workload:
        workload.wait_ready()
        assert workload.finish() == PASS
        daemons = [ProcessWatch(pid) for pid in workload.processes()]
        assert daemons
        bystander = ProcessWatch(os.getpid())
    for watch in daemons:
        with watch:
            assert watch.has_ended()
    with bystander:
        assert not bystander.has_ended()


def test_signals_do_not_hit_a_later_owner_of_the_pid() -> None:
    with Workload.start("misbehaving") as workload:
        watch = ProcessWatch(workload.pid)
        workload.wait_ready()
        workload.finish()
    with watch:
        assert not watch.signal(signal.SIGKILL)


def test_a_failing_engine_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dump.log").write_text("Error (timerfd): no ticks\n")
    monkeypatch.setenv("TORPOR_TEST_ENGINE", "sh -c 'echo to the terminal; exit 3'")
    with pytest.raises(EngineError, match=r"(?s)ended with 3.*to the terminal.*no ticks") as caught:
        dump(1, tmp_path)
    assert caught.value.returncode == 3


def test_what_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORPOR_CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="missing: the command nginx"):
        skips.missing("the command nginx")
    monkeypatch.setenv("TORPOR_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="missing: the command nginx"):
        skips.missing("the command nginx")


def test_zombies_that_the_root_leaves_are_reaped() -> None:
    with Workload.start("misbehaving", ["leave-zombie"]) as workload:
        workload.wait_ready()
        root, zombie = workload.processes()
        assert workload.finish() == PASS
    assert not Path(f"/proc/{root}").exists()
    assert not Path(f"/proc/{zombie}").exists()


@pytest.mark.root
@pytest.mark.parametrize("start", ["start", "start_in_job"])
def test_what_a_killed_test_run_had_started_is_ended(start: str, repository: Path) -> None:
    become_subreaper()
    script = (
        "import time\nfrom harness import guardian\nfrom harness.workload import Workload\n"
        f"fd = guardian.start()\nworkload = Workload.{start}('counter')\n"
        "print(workload.pid, workload.base, flush=True)\ntime.sleep(1000)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{repository / 'src'}{os.pathsep}{repository / 'tests'}"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env) as run:
        assert run.stdout is not None
        pid, base = run.stdout.readline().split()
        with ProcessWatch(int(pid)) as watch:
            run.kill()
            assert watch.wait_ended(time_limit_s(20))
            watch.reap()
    shutil.rmtree(base)


def test_instants_follow_how_long_the_work_takes() -> None:
    """A machine four times as slow, then one as fast as before: most interruptions come in time, some too late."""
    instants, shares = Instants(1, whole_s=0.1), []
    for took_s in (0.4, 0.1):
        finished = 0
        for _ in range(100):
            instants.learn(finished=(is_late := instants.draw() > took_s))
            finished += is_late
        shares.append(finished)
    assert all(10 < share < 60 for share in shares), shares
