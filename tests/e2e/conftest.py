"""Containers under a real Podman, each test's in a machine of its own (`harness.machine`)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.moving import two_hosts
from harness import images
from harness.podman import Podman


@pytest.fixture(scope="session")
def image_stores() -> list[Path]:
    """The container images, made once and kept."""
    return images.stores()


@pytest.fixture
def podman(image_stores: list[Path]) -> Iterator[Podman]:
    """A host with a Podman that has the images and no containers."""
    with Podman(image_stores) as found:
        yield found


@pytest.fixture
def hosts(image_stores: list[Path]) -> Iterator[tuple[Podman, Podman]]:
    """Two between which containers move."""
    with two_hosts(image_stores) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.root)
