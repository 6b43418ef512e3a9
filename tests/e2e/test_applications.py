"""Twelve real applications in containers: their state goes through everything that Podman can do with a checkpoint."""

import pytest

from harness.applications import APPLICATIONS, Application
from harness.podman import Podman

_FILE = "/tmp/checkpoint.tar.zst"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_control(podman: Podman, name: str) -> None:
    """The same without any checkpoint: if this fails, the test is wrong."""
    application = APPLICATIONS[name]
    application.start(podman, "a")
    assert [application.step(podman, "a") for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(podman: Podman, name: str) -> None:
    """Twice down and up in place, once while it runs on, and three copies: the state is there each time."""
    application = APPLICATIONS[name]
    application.start(podman, "a")
    assert [application.step(podman, "a") for _ in range(2)] == [0, 1]
    for expected in (2, 3):
        checkpoint(podman, application, "a")
        assert not podman.is_running("a")
        podman("container", "restore", *application.checkpoint_options, "a")
        assert application.step(podman, "a") == expected
    checkpoint(podman, application, "a", "--leave-running", f"--export={_FILE}")
    assert podman.is_running("a")
    assert application.step(podman, "a") == 4
    copies = ("copy1", "copy2", "copy3")
    for copy in copies:
        podman("container", "restore", *application.checkpoint_options, f"--import={_FILE}", "-n", copy)
    addresses = {podman.address(container) for container in ("a", *copies)}
    assert len(addresses) == 4, addresses
    for container, expected in zip(("a", *copies, *copies), (5, 4, 4, 4, 5, 5, 5), strict=True):
        assert application.step(podman, container) == expected, container


def checkpoint(podman: Podman, application: Application, container: str, *options: str) -> None:
    podman("container", "checkpoint", *application.checkpoint_options, *options, container)
