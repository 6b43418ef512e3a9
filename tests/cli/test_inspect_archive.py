"""`torpor inspect` of archives: for people, as JSON, and with names that are out to harm a terminal."""

import json
import subprocess
import sys
from pathlib import Path

from harness.events import time_limit_s
from unit.containers import making

TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]


def inspect(*words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [*TORPOR, "inspect", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(120), check=False)


def test_the_container_its_processes_and_their_memory(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.tar"
    path.write_bytes(making.tar(making.members()))
    shown = inspect("--all", path).stdout
    for text in ("web", making.ID, "localhost/server:latest", "Podman", "10.88.0.7/16", "8080 to 80/tcp", "/srv/app"):
        assert text in shown
    for text in ("1 server", "8.0 KiB", "/bin/server --port 1", "etc/motd", "/etc/old", "data on /data", "/proc: proc"):
        assert text in shown
    told = json.loads(inspect("--json", path).stdout)
    assert told["container"]["networks"][0]["addresses"] == ["10.88.0.7/16"]
    assert told["container"]["annotations"] == {"io.container.manager": "libpod"}
    assert told["processes"][0]["command"] == ["/bin/server", "--port", "1"]
    assert told["archive"]["compression"] == "none"
    assert "SECRET=x" in shown and "SECRET" not in inspect("--json", path).stdout + inspect(path).stdout
    assert json.loads(inspect("--json", "--all", path).stdout)["environments"] == {"1": ["HOME=/", "SECRET=x"]}


def test_what_is_in_names_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.tar"
    config = {**making.CONFIG, "name": "x\x1b]0;owned\x07\nFAKE LINE"}
    members = [(name, data) for name, data in making.members() if name != "config.dump"]
    evil = "../\x1b[2J"
    path.write_bytes(making.tar([("config.dump", json.dumps(config).encode()), *members, (evil, b"")]))
    done = inspect("-a", path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout and "\nFAKE" not in done.stdout and "leads out" in done.stdout


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"hello" * 1000, making.tar([("readme", b"x")]), bytes(1024)):
        path.write_bytes(data)
        done = inspect(path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"torpor: {path}: ") and done.stderr.count("\n") == 1
