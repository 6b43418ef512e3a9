"""`torpor setup`: the script that runtimes find, what it does in a bare environment, and that it is taken back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import time_limit_s

TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    line = [*TORPOR, *map(str, words)]
    environment = {**os.environ, **variables}
    return subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(120), check=False, env=environment)


def setup(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run("setup", "--directory", directory, *words)


def test_it_is_found_used_and_taken_back(tmp_path: Path) -> None:
    directory = tmp_path / "sbin"
    done = setup(directory)
    assert done.returncode == 0, done.stderr
    script = directory / "criu"
    assert script.stat().st_mode & 0o777 == 0o755
    before = script.read_bytes()
    again = setup(directory)
    assert again.returncode == 0 and "as before" in again.stdout
    assert script.read_bytes() == before
    undone = setup(directory, "--undo")
    assert undone.returncode == 0 and not directory.exists()
    assert "nothing to undo" in setup(directory, "--undo").stdout


def test_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    assert setup(tmp_path).returncode == 0
    (tmp_path / "other").touch()
    assert setup(tmp_path, "--undo").returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]


def test_torpor_is_beside_it_with_manual_and_completions(tmp_path: Path) -> None:
    directory, share = tmp_path / "sbin", tmp_path / "share"
    share.mkdir()
    (share / "man/man1").mkdir(parents=True)
    (share / "man/man1/torpor.1").write_text("somebody else's")
    assert setup(directory).returncode == 0
    done = subprocess.run([directory / "torpor", "--version"], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0 and done.stdout.startswith("torpor ")
    assert (share / "man/man1/torpor.1").read_text() == "somebody else's"
    made = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    assert made > {"man/man8/torpor-criu.8", "bash-completion/completions/torpor", "zsh/site-functions/_torpor"}
    assert "as before" in setup(directory).stdout
    assert setup(directory, "--undo").returncode == 0
    assert [path.name for path in share.rglob("*") if path.is_file()] == ["torpor.1"] and not directory.exists()


@pytest.mark.parametrize("name", ["criu", "torpor"])
def test_an_installation_that_is_gone_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    """As when its virtual environment has been removed: the script stays, and its interpreter is another's."""
    setup(tmp_path)
    script = tmp_path / name
    lines = script.read_text().splitlines()
    place = next(line for line in lines if line.startswith("sys.path[:0] = "))
    script.write_text(script.read_text().replace(place, "sys.path[:0] = ['/nowhere']"))
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: torpor is not where it was") and done.stderr.count("\n") == 1
    assert str(script) in done.stderr and "torpor setup" in done.stderr


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_anothers_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "criu"
    if kind == "file":
        script.write_text("#!/bin/sh\n")
    else:
        script.symlink_to("/bin/true" if kind == "link" else "/nowhere")
    was = os.lstat(script).st_ino, os.lstat(script).st_mtime_ns
    for words in ((), ("--undo",)):
        done = setup(tmp_path, *words)
        assert done.returncode == 1
        assert "not torpor's" in done.stderr and done.stderr.count("\n") == 1
        assert (os.lstat(script).st_ino, os.lstat(script).st_mtime_ns) == was


def test_an_older_one_is_replaced(tmp_path: Path) -> None:
    script = tmp_path / "criu"
    setup(tmp_path / "sbin")
    text = (tmp_path / "sbin/criu").read_text()
    script.write_text(text.replace('"version": "', '"version": "0.0.0-'))
    done = setup(tmp_path)
    assert done.returncode == 0 and "as before" not in done.stdout
    assert "0.0.0-" not in script.read_text()


def test_it_starts_in_a_bare_environment_and_takes_no_modules_from_the_callers(tmp_path: Path) -> None:
    setup(tmp_path / "sbin")
    trap = tmp_path / "trap"
    for name in ("torpor", "google"):
        (trap / name).mkdir(parents=True)
        (trap / name / "__init__.py").write_text("raise SystemExit('imported from the wrong place')")
    (trap / "os.py").write_text("raise SystemExit('imported from the wrong place')")
    for environment in ({}, {"PYTHONPATH": str(trap), "PYTHONHOME": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}):
        line = [str(tmp_path / "sbin/criu"), "--version"]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=trap, check=False)
        assert done.returncode == 0, done.stderr
        assert "torpor" in done.stdout


def test_it_works_with_its_standard_descriptors_closed(tmp_path: Path) -> None:
    """LXC runs it so."""
    setup(tmp_path / "sbin")
    for closed in ("2>&-", "<&- 2>&-", "<&- >&- 2>&-"):
        line = ["sh", "-c", f"{tmp_path / 'sbin/criu'} --version {closed}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert (">&- 2" in closed and "<&- 2" not in closed) or "torpor" in done.stdout


def test_the_status_names_every_engine_and_the_criu_that_it_runs(tmp_path: Path) -> None:
    setup(tmp_path / "sbin")
    engine = tmp_path / "sbin/runc"
    engine.write_text("#!/bin/sh\necho runc version 9.9.9\n")
    engine.chmod(0o755)
    path = f"{tmp_path / 'sbin'}:/usr/bin:/bin"
    done = run("setup", "--status", "--json", "--directory", tmp_path / "sbin", PATH=path)
    found = json.loads(done.stdout)
    assert found["installed"]["is_current"]
    (runc,) = [report for report in found["engines"] if report["engine"] == "runc"]
    assert runc["version"] == "9.9.9"
    assert runc["criu"]["path"] == str(tmp_path / "sbin/criu")
    assert runc["criu"]["is_torpor"] and not runc["problems"]
    assert "runc 9.9.9" in run("setup", "--status", PATH=path).stdout
