"""Pages that travel between this engine and another CRIU: to its page server and from it, and memory that comes later.

The other's page server makes pipes of 4 MiB: `sysctl fs.pipe-max-size=4194304`.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.peers import LOOPBACK, Waiting, free_port, waiting
from harness.workload import Workload

pytestmark = pytest.mark.root

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))
SIDES = {"ours": engine.command(), "peer": PEER}
#: Who serves and who dumps or restores.
CROSSED = [("ours", "peer"), ("peer", "ours")]
WORKLOADS = ["kinds shared", "threads", "later_memory"]


@contextmanager
def serving(side: str, words: Sequence[str], images: Path) -> Iterator[Waiting]:
    with waiting([*words, "-W", str(images)], images, command=SIDES[side]) as found:
        yield found


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(("server", "dumper"), CROSSED)
@pytest.mark.parametrize("restorer", ["ours", "peer"])
def test_pages_by_a_page_server(name: str, server: str, dumper: str, restorer: str) -> None:
    at = ["--address", LOOPBACK, "--port", str(free_port())]
    program, *args = name.split()
    with Workload.start(program, args) as workload:
        workload.wait_ready()
        with serving(server, ["page-server", *at], workload.images) as taking:
            with engine.using(SIDES[dumper]):
                workload.dump(options=["--page-server", *at])
            assert taking.end() == 0, taking.log
        with engine.using(SIDES[restorer]):
            workload.restore()
        workload.expect_pass()


@pytest.mark.parametrize("dumper", ["ours", "peer"])
@pytest.mark.parametrize(("daemon", "restorer"), CROSSED)
def test_memory_that_comes_later(dumper: str, daemon: str, restorer: str) -> None:
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        with engine.using(SIDES[dumper]):
            workload.dump()
        with serving(daemon, ["lazy-pages"], workload.images) as bringing:
            with engine.using(SIDES[restorer]):
                workload.restore(options=["-W", str(workload.images), "--lazy-pages"])
            workload.expect_pass()
            assert bringing.end() == 0, bringing.log


@pytest.mark.parametrize(("giver", "daemon"), CROSSED)
def test_memory_that_comes_from_images_elsewhere(giver: str, daemon: str) -> None:
    at = ["--address", LOOPBACK, "--port", str(free_port())]
    with Workload.start("later_memory") as workload:
        workload.wait_ready()
        workload.dump()
        with (
            serving(giver, ["page-server", "--lazy-pages", *at], workload.images) as giving,
            serving(daemon, ["lazy-pages", "--page-server", *at], workload.images) as bringing,
        ):
            workload.restore(options=["-W", str(workload.images), "--lazy-pages"])
            workload.expect_pass()
            assert bringing.end() == 0, bringing.log
            assert giving.end() == 0, giving.log
