"""Two hosts with a Podman each, and a client, on one Ethernet segment: the service's address moves along with it."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.slides import SECOND, let_in
from harness.machine import Machine
from harness.podman import Podman

TORPOR = "/usr/local/sbin/torpor"
SERVICE, CLIENT = "192.0.2.100", "192.0.2.50"


def _write_torpor(machine: Machine) -> None:
    command = machine.path(TORPOR)
    source = os.environ["PYTHONPATH"]
    command.write_text(
        f"#!/bin/sh\nexport PYTHONPATH='{source}' TORPOR_STATE=/run/torpor\n"
        f'exec {sys.executable} -m torpor.cli.torpor "$@"\n'
    )
    command.chmod(0o755)


@pytest.fixture
def segment(image_stores: list[Path]) -> Iterator[tuple[Podman, Podman]]:
    """Two on one segment, each of which lets the other in; a bridge on the second leads to the client."""
    with ExitStack() as stack:
        first = stack.enter_context(Podman(image_stores, "first"))
        second = stack.enter_context(Podman(image_stores, SECOND))
        first.machine.join(second.machine)
        let_in(first.machine, second.machine)
        for each in (first, second):
            _write_torpor(each.machine)
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
