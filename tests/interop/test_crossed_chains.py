"""Chains of images, of which each has only what was written since the one before: ours, restored by another CRIU.

The other engine needs soft-dirty to make some; ``tests/fixtures/chains`` has one of its own.
"""

import os
import shlex
import subprocess

import pytest

from harness import engine
from harness.events import time_limit_s
from harness.workload import Workload

pytestmark = pytest.mark.root

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))


@pytest.mark.parametrize("name", ["counter", "threads", "vectors"])
@pytest.mark.parametrize("restorer", ["ours", "peer"])
def test_a_chain_of_three(name: str, restorer: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        before: list[str] = []
        for number in range(2):
            images = workload.base / f"before-{number}"
            images.mkdir()
            line = [*engine.command(), "pre-dump", "-t", str(workload.pid), "-D", str(images), "-o", "log", "-v4"]
            subprocess.run(
                [*line, "--track-mem", *before], stdin=subprocess.DEVNULL, timeout=time_limit_s(60), check=True
            )
            before = ["--prev-images-dir", f"../{images.name}"]
        workload.dump(options=["--track-mem", *before])
        with engine.using(PEER if restorer == "peer" else engine.command()):
            workload.restore()
        workload.expect_pass()
