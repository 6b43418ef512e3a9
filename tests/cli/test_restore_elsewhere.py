"""A job that is restored where the clocks show something else, as after a reboot."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.compiler import compiled
from harness.events import ProcessWatch, RenameWatch, time_limit_s, wait_renamed
from torpor.cli import torpor
from torpor.engine import jobs

pytestmark = pytest.mark.root


def test_a_job_goes_on_by_its_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    work = tmp_path / "work"
    work.mkdir()
    status = work / "status"
    program = [str(compiled("clocks")), "--status", str(status), "--dir", str(work), "--", "3"]
    renames = RenameWatch(work)
    try:
        assert torpor.main(["run", "--name", "clock", "-d", "--", *program]) == 0
        with ProcessWatch(jobs.find("clock").pid) as watch:
            assert wait_renamed(renames, watch, status.exists, time_limit_s(20))
        for shift_s in (-100, 5000):
            assert torpor.main(["checkpoint", "clock"]) == 0
            elsewhere = ["unshare", "--time", "--monotonic", str(shift_s), "--boottime", str(2 * shift_s)]
            restore = [sys.executable, "-m", "torpor.cli.torpor", "restore", "clock"]
            subprocess.run([*elsewhere, *restore], check=True, timeout=time_limit_s(60), stdin=subprocess.DEVNULL)
        job = jobs.find("clock")
        with ProcessWatch(job.pid) as watch:
            jobs.kill(job, signal.SIGTERM)
            wait_renamed(renames, watch, lambda: status.read_text() != "ready", time_limit_s(60))
        assert status.read_text() == "pass"
    finally:
        renames.close()
        if jobs.find("clock").status == jobs.RUNNING:
            jobs.kill(jobs.find("clock"), signal.SIGKILL)
