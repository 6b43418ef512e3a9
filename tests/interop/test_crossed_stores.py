"""What plain tools make of our other stores another CRIU restores: tar of a stream, zstd of compressed memory."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import engine
from harness.workload import Workload

pytestmark = pytest.mark.root

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))


def _checkpoint(pid: int, *words: str, stdout: int | None = None) -> None:
    line = [sys.executable, "-m", "torpor.cli.torpor", "checkpoint", str(pid), "-y", *words]
    subprocess.run(line, stdin=subprocess.DEVNULL, stdout=stdout, check=True)


def _by_a_stream(pid: int, images: Path) -> None:
    archive = images.parent / "x.tar"
    with open(archive, "wb") as out:
        _checkpoint(pid, "-o", "-", stdout=out.fileno())
    subprocess.run(["tar", "-xf", archive, "-C", images, "--strip-components=1"], check=True)


def _compressed(pid: int, images: Path) -> None:
    _checkpoint(pid, "--compress", "zstd", "-o", str(images))
    packed = [path.name for path in images.glob("*.zst")]
    assert packed
    subprocess.run(["zstd", "-q", "-d", "--rm", *packed], cwd=images, check=True)


@pytest.mark.parametrize("name", ["counter", "vectors", "shared_tables"])
@pytest.mark.parametrize("make", [_by_a_stream, _compressed])
def test_the_peer_restores_what_is_unpacked(make: Callable[[int, Path], None], name: str) -> None:
    with Workload.start(name) as workload:
        workload.wait_ready()
        workload.images.mkdir(exist_ok=True)
        make(workload.pid, workload.images)
        workload.reap()
        with engine.using(PEER):
            workload.restore()
        workload.expect_pass()
