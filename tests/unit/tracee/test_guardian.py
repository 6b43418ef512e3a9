"""A guardian is without effect as soon as it is dismissed; its end is waited for once, when there is time for it."""

import os
import signal
from types import SimpleNamespace
from typing import cast

from torpor.tracee.guardian import Guardian
from torpor.tracee.stub import Stub


def _stub(pid: int, done: list[str]) -> Stub:
    def wait() -> None:
        done.append("waited")
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL

    thread = SimpleNamespace(tgid=pid, detach=lambda: done.append("detached"), wait=wait)
    life = SimpleNamespace(close=lambda: done.append("closed"))
    return cast(Stub, SimpleNamespace(thread=thread, life=life, runner=SimpleNamespace(start=lambda batch: None)))


def test_it_is_buried_later_than_dismissed() -> None:
    done: list[str] = []
    child = os.fork()
    if not child:
        signal.pause()
    guardian = Guardian(_stub(child, done))
    guardian.watch([])
    guardian.dismiss()
    assert done == ["detached", "closed"]
    guardian.dismiss()
    guardian.bury()
    guardian.bury()
    assert done == ["detached", "closed", "waited"]


def test_it_may_be_buried_at_once() -> None:
    done: list[str] = []
    child = os.fork()
    if not child:
        signal.pause()
    guardian = Guardian(_stub(child, done))
    guardian.watch([])
    guardian.bury()
    assert done == ["detached", "closed", "waited"]
