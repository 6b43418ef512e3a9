"""Docker by a script in its place: which checkpoint it wakes from, and the daemon that is not ready yet."""

import json
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, UsageError
from torpor.containers import note
from torpor.containers.docker import Docker
from torpor.containers.model import Container

ID = "ab" * 32
INSPECT = [
    {
        "Id": ID,
        "State": {"Pid": 7, "Status": "running"},
        "NetworkSettings": {"Networks": {"b": {"IPAddress": "1.2.3.4"}}},
    }
]
SCRIPT = """#!/bin/sh
echo "$@" >> {here}/log
case "$*" in
    "checkpoint ls"*) cat {here}/checkpoints;;
    "container inspect"*) echo '{inspect}';;
    "info"*) echo {here}/docker;;
    "start"*)
        ls {here}/docker/containers/*/checkpoints/*/inventory.img >> {here}/log 2>/dev/null
        n=$(cat {here}/refusals); [ "$n" = 0 ] && exit 0
        echo $((n - 1)) > {here}/refusals
        echo "Error response from daemon: commit failed: content sha256:1: already exists" >&2; exit 1;;
esac
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "engine"
    script.write_text(SCRIPT.format(here=tmp_path, inspect=json.dumps(INSPECT)))
    script.chmod(0o755)
    (tmp_path / "refusals").write_text("0\n")
    monkeypatch.setenv("TORPOR_DOCKER", str(script))
    return tmp_path


CONTAINER = Container("docker", "web", ID, "exited")


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["torpor-20260101-000000", "torpor-20260102-000000", "mine"], "torpor-20260102-000000"),
        (["mine"], "mine"),
        (["a", "b"], None),
        ([], None),
    ],
)
def test_it_wakes_from_the_latest_checkpoint_of_ours_or_the_only_one(
    here: Path, there: list[str], chosen: str | None
) -> None:
    (here / "checkpoints").write_text("\n".join(["CHECKPOINT NAME", *there, ""]))
    if chosen is None:
        with pytest.raises((UsageError, EngineError)):
            Docker().restore(CONTAINER, [])
        return
    restored = Docker().restore(CONTAINER, [])
    assert restored.addresses == ("1.2.3.4",) and restored.container.pid == 7
    assert f"start --checkpoint={chosen} {ID}" in (here / "log").read_text()


def test_a_daemon_that_still_has_the_checkpoint_in_its_store_is_asked_again(here: Path) -> None:
    (here / "refusals").write_text("1\n")
    Docker().restore(CONTAINER, [("checkpoint", "x")])
    assert (here / "log").read_text().count("start --checkpoint=x") == 2


def test_a_directory_goes_by_way_of_the_daemons_own(here: Path) -> None:
    images = here / "somewhere/checkpoint"
    images.mkdir(parents=True)
    (images / "inventory.img").write_bytes(b"")
    note.write(images.parent, CONTAINER)
    told = note.read(images.parent)
    assert told is not None and (told.engine, told.name) == ("docker", "web")
    Docker().restore_directory(images.parent, told, [])
    assert "checkpoints/torpor-from-directory/inventory.img" in (here / "log").read_text()
    assert not list((here / "docker/containers").glob("*/checkpoints/*"))


def test_what_docker_cannot_do_is_refused_before_it_is_called(here: Path) -> None:
    with pytest.raises(UsageError, match="tcp-established"):
        Docker().checkpoint(CONTAINER, None, [("tcp-established", "")])
    assert not (here / "log").exists()
