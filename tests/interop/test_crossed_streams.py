"""``--stream``: images of one engine, moved by a streamer, restored by the other."""

import os
import shlex

import pytest

from harness import engine
from harness.streamer import Streamer
from harness.workload import Workload

pytestmark = pytest.mark.root

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))


@pytest.mark.parametrize("name", ["counter", "threads", "vectors", "pipe_contents"])
@pytest.mark.parametrize("dumper", ["ours", "peer"])
@pytest.mark.parametrize("restorer", ["ours", "peer"])
def test_from_one_to_the_other(name: str, dumper: str, restorer: str) -> None:
    engines = {"ours": engine.command(), "peer": PEER}
    with Workload.start(name) as workload:
        workload.wait_ready()
        images: dict[str, bytes] = {}
        with Streamer(workload.images, images), engine.using(engines[dumper]):
            workload.dump(options=("--stream",))
        with Streamer(workload.images, images, serves=True), engine.using(engines[restorer]):
            workload.restore(options=("--stream",))
        workload.expect_pass()
