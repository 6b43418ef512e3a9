"""``torpor migrate``: a container of Podman moves from one host to another by ssh, and runs on where it cannot."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.slides import SECOND, let_in
from harness import images
from harness.applications import ShellLoop
from harness.podman import Podman

_LOOP = ShellLoop()
_TORPOR = "/usr/local/sbin/torpor"


@pytest.fixture
def hosts(image_stores: list[Path]) -> Iterator[tuple[Podman, Podman]]:
    """Two, and root of the first may log in to the second."""
    with ExitStack() as stack:
        first = stack.enter_context(Podman(image_stores, "first"))
        second = stack.enter_context(Podman(image_stores, SECOND))
        first.machine.join(second.machine)
        let_in(first.machine, second.machine)
        for each in (first, second):
            command = each.machine.path(_TORPOR)
            source = os.environ["PYTHONPATH"]
            command.write_text(
                f"#!/bin/sh\nexport PYTHONPATH='{source}' TORPOR_STATE=/run/torpor\n"
                f'exec {sys.executable} -m torpor.cli.torpor "$@"\n'
            )
            command.chmod(0o755)
        yield first, second


def _migrate(first: Podman, *words: str, check: bool = True) -> str:
    line = [_TORPOR, "migrate", "podman:counter", SECOND, "--remote-torpor", _TORPOR, *words]
    done = first.machine.run(*line, check=check, merge=True, timeout_s=180)
    assert check or done.returncode != 0
    return done.stdout


def test_a_container_moves_and_goes_on_there(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    assert [_LOOP.step(first, container) for _ in range(3)] == [0, 1, 2]
    assert "nothing stands in the way" in _migrate(first, "--dry-run")
    assert f"counter runs on {SECOND}" in _migrate(first)
    assert first("ps", "--all", "--quiet") == ""
    assert [_LOOP.step(second, "counter") for _ in range(3)] == [3, 4, 5]


def test_what_the_other_host_cannot_take_runs_on(hosts: tuple[Podman, Podman]) -> None:
    first, second = hosts
    container = first.run("--name", "counter", images.APPLICATIONS, *_LOOP.command)
    assert _LOOP.step(first, container) == 0
    # What can be known is said before anything is stopped.
    second("create", "--name", "counter", images.APPLICATIONS, "true")
    assert "a container called counter here" in _migrate(first, check=False)
    assert _LOOP.step(first, container) == 1
    # What cannot: it is restored where it was.
    second("rm", "counter")
    second.machine.path("/usr/local/sbin/criu").unlink()
    said = _migrate(first, check=False)
    assert "podman:counter runs on here" in said, said
    assert _LOOP.step(first, container) == 2
    assert second("ps", "--all", "--quiet") == ""
