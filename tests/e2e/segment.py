"""Two hosts with a Podman each, and a client, on one Ethernet segment: the service's address moves along with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.moving import two_hosts
from e2e.slides import SECOND
from harness.podman import Podman

SERVICE, CLIENT = "192.0.2.100", "192.0.2.50"


@pytest.fixture
def segment(image_stores: list[Path]) -> Iterator[tuple[Podman, Podman]]:
    """Two on one segment, each of which lets the other in; a bridge on the second leads to the client."""
    with two_hosts(image_stores) as (first, second):
        first.machine.run("ip", "address", "add", "192.0.2.1/24", "dev", f"to-{SECOND}")
        for line in (
            "link add br0 type bridge",
            "address flush dev to-first",
            "link set to-first master br0",
            "link set br0 up",
            "address add 192.0.2.2/24 dev br0",
            "netns add client",
            "link add c0 type veth peer name c1 netns client",
            "link set c0 master br0 up",
            f"-n client address add {CLIENT}/24 dev c1",
            "-n client link set c1 up",
        ):
            second.machine.run("ip", *line.split())
        yield first, second
