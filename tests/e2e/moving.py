"""Two hosts between which containers move: root of the first may log in to the second, and both have torpor."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from e2e.slides import SECOND, let_in
from harness.podman import Podman

#: The command on both.
TORPOR = "/usr/local/sbin/torpor"


@contextmanager
def two_hosts(stores: list[Path]) -> Iterator[tuple[Podman, Podman]]:
    """The second is called SECOND."""
    with ExitStack() as stack:
        first = stack.enter_context(Podman(stores, "first"))
        second = stack.enter_context(Podman(stores, SECOND))
        first.machine.join(second.machine)
        let_in(first.machine, second.machine)
        for each in (first, second):
            write_command(each, TORPOR, f'exec {sys.executable} -m torpor.cli.torpor "$@"')
        yield first, second


def write_command(podman: Podman, path: str, line: str) -> None:
    """A command there that is *line* of a shell, with the torpor that is tested."""
    command = podman.machine.path(path)
    source = os.environ["PYTHONPATH"]
    command.write_text(f"#!/bin/sh\nexport PYTHONPATH='{source}' TORPOR_STATE=/run/torpor\n{line}\n")
    command.chmod(0o755)
