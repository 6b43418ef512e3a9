"""Podman by a script in its place: names of archives, room for them, and what is left of a checkpoint that fails."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, RefusedError, UsageError
from torpor.containers import space
from torpor.containers.model import Container
from torpor.containers.podman import Podman
from unit.containers import making

ID = "ab" * 32
SCRIPT = """#!/bin/sh
echo "$@" >> {here}/log
case "$*" in
    "container inspect"*) [ -e {here}/gone ] && exit 125; cat {here}/inspect;;
    "diff"*) echo '{{"changed": []}}';;
    "container checkpoint"*)
        for word in "$@"; do case "$word" in --export=*) cp {here}/archive "${{word#--export=}}";; esac; done
        . {here}/then;;
esac
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "engine"
    script.write_text(SCRIPT.format(here=tmp_path))
    script.chmod(0o755)
    (tmp_path / "static").mkdir()
    (tmp_path / "archive").write_bytes(making.tar(making.members()))
    (tmp_path / "then").write_text("true\n")
    _state(tmp_path, "running")
    monkeypatch.setenv("TORPOR_PODMAN", str(script))
    return tmp_path


def _state(here: Path, status: str, *, auto_remove: bool = False) -> None:
    told = {
        "State": {"Status": status},
        "StaticDir": str(here / "static"),
        "HostConfig": {"AutoRemove": auto_remove},
        "SizeRw": 1000,
    }
    (here / "inspect").write_text(json.dumps([told]))


def _container() -> Container:
    return Container("podman", "web", ID, "running", os.getpid())


@pytest.mark.parametrize(
    ("name", "words", "compress"),
    [
        ("web.tar.gz", [], "gzip"),
        ("web.tgz", [], "gzip"),
        ("web.tar.zst", [], "zstd"),
        ("web.tar", [], "none"),
        ("web.tar", [("compress", "none")], "none"),
        ("web.img", [], None),
        ("web.img", [("compress", "gzip")], "gzip"),
    ],
)
def test_the_name_says_how_an_archive_is_compressed(
    here: Path, name: str, words: list[tuple[str, str]], compress: str | None
) -> None:
    Podman().checkpoint(_container(), here / name, words)
    (line,) = [line for line in (here / "log").read_text().splitlines() if line.startswith("container checkpoint")]
    found = [word for word in line.split() if word.startswith("--compress")]
    assert found == ([f"--compress={compress}"] if compress else [])


def test_another_compression_than_the_name_says_is_refused(here: Path) -> None:
    with pytest.raises(UsageError, match="compress"):
        Podman().checkpoint(_container(), here / "web.tar.gz", [("compress", "none")])
    assert not (here / "log").exists()


def test_an_earlier_archive_stays_until_the_new_one_is_whole(here: Path) -> None:
    output = here / "web.tar"
    output.write_bytes(b"earlier")
    (here / "then").write_text("echo Error: no space left on device >&2; exit 125\n")
    (here / "archive").write_bytes(b"torn")
    with pytest.raises(EngineError) as caught:
        Podman().checkpoint(_container(), output, [])
    assert "podman:web runs on" in caught.value.describe()
    assert output.read_bytes() == b"earlier" and not (here / "web.tar.new").exists()
    (here / "then").write_text("true\n")
    (here / "archive").write_bytes(making.tar(making.members()))
    Podman().checkpoint(_container(), output, [])
    assert output.read_bytes() == (here / "archive").read_bytes() and not (here / "web.tar.new").exists()


@pytest.mark.parametrize("has_earlier", [True, False])
def test_of_a_container_that_runs_on_after_a_failure_no_archive_stays(here: Path, has_earlier: bool) -> None:
    output = here / "web.tar"
    if has_earlier:
        output.write_bytes(b"earlier")
    seen = f"cp {here}/web.tar {here}/seen; ls {here}/web.tar.new"
    (here / "then").write_text(f"{seen}; echo Error: too late >&2; exit 125\n")
    with pytest.raises(EngineError) as caught:
        Podman().checkpoint(_container(), output, [("leave-running", "")])
    assert "podman:web runs on" in caught.value.describe()
    for place in (output, here / "seen"):
        assert place.exists() == has_earlier and (not has_earlier or place.read_bytes() == b"earlier")
    assert not (here / "web.tar.new").exists()


@pytest.mark.parametrize(
    ("then", "torn", "told"),
    [
        ("true", True, "has ended, and there is no checkpoint of it"),
        ("mkdir {here}/static/checkpoint; touch {here}/static/checkpoint/inventory.img", True, "sleeps in"),
        ("touch {here}/gone", True, "podman:web is lost"),
        ("touch {here}/gone", False, "is in {here}/web.tar all the same: `torpor restore {here}/web.tar` wakes it"),
    ],
)
def test_after_a_failure_it_says_what_has_become_of_the_container(here: Path, then: str, torn: bool, told: str) -> None:
    if torn:
        (here / "archive").write_bytes(b"torn")
    exited = f"sed -i s/running/exited/ {here}/inspect"
    (here / "then").write_text(f"{then.format(here=here)}; {exited}; echo Error: no space >&2; exit 125\n")
    with pytest.raises(EngineError) as caught:
        Podman().checkpoint(_container(), here / "web.tar", [])
    assert told.format(here=here) in caught.value.describe()
    assert (here / "web.tar").exists() is not torn
    if "sleeps" in told:
        assert "`torpor restore podman:web` wakes it" in caught.value.describe()


def test_room_is_looked_for_before_anything_is_done(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "memory_of", lambda pid: 1 << 60)
    with pytest.raises(RefusedError, match="podman's storage"):
        Podman().checkpoint(_container(), here / "web.tar", [])
    _state(here, "running", auto_remove=True)
    with pytest.raises(RefusedError, match="started with --rm, and would be lost"):
        Podman().checkpoint(_container(), None, [])
    assert "container checkpoint" not in (here / "log").read_text()


def test_what_is_lost_must_fit_uncompressed() -> None:
    assert space.archive_size(800, is_compressed=True, is_lost=True) == 800
    assert space.archive_size(800, is_compressed=False, is_lost=False) == 800
    assert space.archive_size(800, is_compressed=True, is_lost=False) == 100


@pytest.mark.root
def test_the_memory_of_a_process_is_counted() -> None:
    program = "import time; held = bytearray(b'x') * (64 << 20); print('there', flush=True); time.sleep(1000)"
    line = ["unshare", "--fork", "--pid", "--kill-child", "/usr/bin/env", "python3", "-c", program]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert (64 << 20) < space.memory_of(int(children[0])) < (160 << 20)
        process.kill()
