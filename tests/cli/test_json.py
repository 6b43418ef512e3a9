"""`--json` of check, checkpoint and restore: one object each, that says what the lines say."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.events import become_subreaper
from torpor.cli import torpor

pytestmark = pytest.mark.root


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    become_subreaper()
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    for name in ("PODMAN", "DOCKER", "CTR", "RUNC", "CRUN", "LXC_CHECKPOINT"):
        monkeypatch.setenv(f"TORPOR_{name}", "/nowhere")
    assert torpor.main(["run", "--name", "told", "-d", "--", "sleep", "1000"]) == 0
    yield "told"
    for name in ("told", "copy1", "copy2"):
        torpor.main(["kill", "--remove", name])


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert torpor.main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_job_there_and_back(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = told(capsys, "check", job)
    assert isinstance(checked.pop("not_looked_at"), list)
    assert checked == {"target": job, "problems": [], "losses": [], "chances": []}
    made = told(capsys, "checkpoint", job)
    assert made["target"] == f"{job}@1" and made["processes"] == 1
    assert isinstance(made["size_bytes"], int) and made["size_bytes"] > 0
    assert isinstance(made["stopped_seconds"], float) and isinstance(made["seconds"], float)
    (restored,) = told(capsys, "restore", job)["restored"]
    assert restored["name"] == job and isinstance(restored["pid"], int)
    copies = told(capsys, "restore", job, "--name", "copy", "--copies", "2")["restored"]
    assert [each["name"] for each in copies] == ["copy1", "copy2"]


def test_what_is_in_the_way() -> None:
    """A process whose pipe leads out."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        line = [sys.executable, "-m", "torpor.cli.torpor", "check", "--json", str(process.pid)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        found = json.loads(done.stdout)
        assert any("pipe:" in problem for problem in found["problems"])


def test_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "check")
    features = found["features"]
    assert isinstance(features, list) and {"name", "is_there", "is_required", "purpose"} == set(features[0])
    assert found["lacking"] == []
