"""--leave-stopped with a TCP connection to the outside: it outlives what comes of the tree, whichever that is.

Until then its packets are held back: what a stopped tree received would not be in the images.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import engine
from harness.events import ProcessWatch, time_limit_s
from harness.streams import FarEnd, NearEnd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

_OPTIONS = ["--tcp-established", "--leave-stopped"]


def _is_locked() -> bool:
    return "CRIU" in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


@contextmanager
def _stopped() -> Iterator[tuple[FarEnd, NearEnd]]:
    """A far end that has been dumped and left stopped, and the near end, which goes on."""
    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        engine.dump(far.pid, far.images, options=_OPTIONS)
        assert _is_locked()
        yield far, near
        assert near.is_talking
        sent, received = near.finish()
        assert far.counts() == (received, sent)
        assert not _is_locked()


def _kill(far: FarEnd) -> None:
    with ProcessWatch(far.pid) as watch:
        watch.signal(signal.SIGKILL)
        far.reap()


def test_killed_and_restored() -> None:
    with _stopped() as (far, _):
        _kill(far)
        assert _is_locked()
        far.restore()


def test_continued() -> None:
    with _stopped() as (far, _):
        os.kill(far.pid, signal.SIGCONT)
        deadline = time.monotonic() + time_limit_s(10)
        while _is_locked():
            assert time.monotonic() < deadline, "the network stays locked"
            time.sleep(0.01)


def test_dumped_again_and_restored() -> None:
    with _stopped() as (far, _):
        far.sleep_and_wake()
        os.kill(far.pid, signal.SIGCONT)


def test_left_stopped_again_then_killed_and_restored() -> None:
    with _stopped() as (far, _):
        engine.dump(far.pid, far.images, options=_OPTIONS)
        _kill(far)
        far.restore()
        os.kill(far.pid, signal.SIGCONT)
