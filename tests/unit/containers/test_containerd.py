"""A checkpoint of ctr's that lacks the processes, which ctr takes for none of its concern."""

from pathlib import Path

import pytest

from torpor.base.errors import EngineError
from torpor.containers.containerd import Containerd, name_in
from torpor.containers.model import Container

SCRIPT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
    *"images list"*) echo "$(grep -o 'localhost/torpor[^ ]*' {log} | head -n 1) x sha256:1";;
    *"content get"*) echo '{content}';;
esac
"""
FULL = "application/vnd.containerd.container.criu.checkpoint.criu.tar"


@pytest.mark.parametrize("content", [FULL, "application/vnd.oci.image.manifest.v1+json"])
def test_a_container_ends_only_if_its_processes_are_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    script, log = tmp_path / "ctr", tmp_path / "log"
    script.write_text(SCRIPT.format(log=log, content=content))
    script.chmod(0o755)
    monkeypatch.setenv("TORPOR_CTR", str(script))
    container = Container("containerd", "web", "web", "running", 5, place="default")
    if content == FULL:
        assert "localhost/torpor-checkpoint/web:" in Containerd().checkpoint(container, None, [])
        assert "tasks kill" in log.read_text() and "images remove" not in log.read_text()
    else:
        with pytest.raises(EngineError, match="runs on"):
            Containerd().checkpoint(container, tmp_path / "out.tar", [])
        assert "tasks kill" not in log.read_text() and "images remove --sync" in log.read_text()


def test_the_name_of_a_checkpoint_tells_the_containers() -> None:
    assert name_in("localhost/torpor-checkpoint/web:20260102-030405") == "web"
    assert name_in("docker.io/library/web:1") == ""
