"""What a word means, with engines that are shell scripts."""

import json
import os
import shlex
from pathlib import Path

import pytest

from torpor.base.errors import AmbiguousNameError, EngineError, JobError, TorporError, UsageError
from torpor.containers import names
from torpor.engine.jobs import registry

WEB, DB, OTHER = "ab" * 32, "ac" * 32, "ba" * 32


def engine(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, output: str, code: int = 0) -> None:
    script = directory / name
    (directory / f"{name}.out").write_text(output)
    stream = "" if code == 0 else ">&2"
    script.write_text(f"#!/bin/sh\ncat {shlex.quote(str(script))}.out {stream}\nexit {code}\n")
    script.chmod(0o755)
    monkeypatch.setenv(f"TORPOR_{name.upper().replace('-', '_')}", str(script))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Podman with web (running) and db, whose runc knows web too, as well as its own shell; no other engine."""
    monkeypatch.setenv("TORPOR_STATE", str(tmp_path / "state"))
    for name in ("DOCKER", "CTR", "LXC_CHECKPOINT", "CRUN"):
        monkeypatch.setenv(f"TORPOR_{name}", "/nowhere")
    podman = [
        {"Id": WEB, "Names": ["web"], "State": "running", "Pid": 77, "Image": "localhost/web:1"},
        {"Id": DB, "Names": ["db"], "State": "exited", "Pid": 78, "Image": "localhost/db:1"},
    ]
    engine(monkeypatch, tmp_path, "podman", json.dumps(podman))
    engine(monkeypatch, tmp_path, "runc", json.dumps({"pid": 99, "status": "running", "bundle": "/bundle"}))
    for ident in (WEB, "shell"):
        (tmp_path / "run" / ident).mkdir(parents=True)
    monkeypatch.setenv("TORPOR_RUNC", f"{tmp_path / 'runc'} --root {tmp_path / 'run'}")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "label", "pid"),
    [
        ("web", "podman:web", 77),
        ("db", "podman:db", 0),
        (WEB, "podman:web", 77),
        (WEB[:12], "podman:web", 77),
        (DB[:4], "podman:db", 0),
        ("shell", "runc:shell", 99),
        ("podman:web", "podman:web", 77),
        (f"runc:{WEB}", f"runc:{WEB}", 99),
        (f"pid:{os.getpid()}", f"pid:{os.getpid()}", os.getpid()),
        (str(os.getpid()), f"pid:{os.getpid()}", os.getpid()),
    ],
)
def test_a_word_that_means_one_thing(word: str, label: str, pid: int) -> None:
    found = names.resolve(word)
    assert (found.label, found.pid) == (label, pid)


def test_an_engine_may_be_named_apart() -> None:
    assert names.resolve("web", "podman").label == "podman:web"
    with pytest.raises(TorporError, match="called web"):
        names.resolve("web", "runc")
    with pytest.raises(UsageError):
        names.resolve("podman:web", "runc")
    with pytest.raises(UsageError, match="no engine"):
        names.resolve("web", "rkt")


def test_a_name_of_several_is_an_error_that_lists_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = {"ID": OTHER, "Names": "web", "State": "running", "Image": "web"}
    script = here / "docker"
    script.write_text(
        "#!/bin/sh\n"
        f"""case $1 in ps) echo '{json.dumps(docker)}';; """
        f"""*) echo '{json.dumps([{"Id": OTHER, "State": {"Pid": 5, "Status": "running"}}])}';; esac\n"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("TORPOR_DOCKER", str(script))
    registry.save(registry.create("web", ("sleep", "1")))
    with pytest.raises(AmbiguousNameError) as caught:
        names.resolve("web")
    assert caught.value.exit_code == 3
    told = caught.value.describe()
    spelled = ("job:web", f"podman:{WEB[:12]}", f"docker:{OTHER[:12]}")
    assert [each for each in spelled if each not in told] == [], told
    for word in ("job:web", f"podman:{WEB[:12]}", f"docker:{OTHER[:12]}", "docker:web"):
        assert names.resolve(word).label.endswith(":web")
    assert names.resolve("docker:web").pid == 5


def test_a_beginning_of_several_ids_is_an_error() -> None:
    with pytest.raises(TorporError, match="called ab"):
        names.resolve("ab")  # too short for an id
    assert names.resolve("abab").label == "podman:web"


def test_what_does_not_exist_names_the_engines_that_did_not_answer(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, here, "docker", "Error: no daemon answers\n", 1)
    with pytest.raises(TorporError) as caught:
        names.resolve("nothing")
    assert "no daemon answers" in caught.value.describe()
    with pytest.raises(EngineError, match="no daemon answers"):
        names.resolve("docker:nothing")
    with pytest.raises(TorporError, match="no process has pid"):
        names.resolve("4194399")
    with pytest.raises(JobError):
        names.resolve("job:nothing")


@pytest.mark.parametrize("answer", ["{", "3", '[{"Names": 3}]', "[[]]"])
def test_an_answer_of_another_form_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    engine(monkeypatch, here, "podman", answer)
    with pytest.raises(TorporError) as caught:
        names.resolve("podman:web")
    assert "\n" not in caught.value.describe()


def test_what_an_engine_says_when_it_fails_is_told_without_its_decoration(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = here / "dump.log"
    log.write_text("(00.000001) fine\n(00.000002) Error (x.py:3): fd 5 of pid 9 is in the way\n")
    said = (
        'time="2026-01-01T00:00:00Z" level=warning msg="never mind"\n'
        f'time="2026-01-01T00:00:00Z" level=error msg="criu failed: log file: {log}"\n'
    )
    engine(monkeypatch, here, "runc", said, 1)
    monkeypatch.setenv("TORPOR_RUNC", f"{here / 'runc'} --root={here / 'run'}")
    with pytest.raises(EngineError) as caught:
        names.resolve("runc:shell")
    told = caught.value.describe()
    assert "never mind" not in told and "fd 5 of pid 9 is in the way" in told and "time=" not in told
