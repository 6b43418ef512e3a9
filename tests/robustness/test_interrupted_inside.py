"""A signal that asks the dumper to end comes while a task of the target's works for it: the target never notices.

At every instant at which the dumper waits for a thread of the target's, one after the other, in all kinds of dumps.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.events import ProcessWatch
from harness.workload import Workload
from robustness.test_dumper_killed import addresses, check_free
from torpor.base.errors import TorporError
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel import interrupts
from torpor.tracee.thread import Stop, Thread

pytestmark = pytest.mark.root

_NOT_ASKED, _STOPPED, _FAILED, _DEAF = 0, 3, 4, 5


class _Waits:
    """Has SIGTERM come as the wait with this number begins, or has just ended."""

    def __init__(self, number: int, when: str) -> None:
        self._left, self._when = number, when
        self._wait: Callable[[Thread], Stop] = Thread.wait
        self.has_asked = False

    def as_function(self) -> Callable[[Thread], Stop]:
        """For the class, of which it is a method."""

        def wait(thread: Thread) -> Stop:
            return self._of(thread)

        return wait

    def _of(self, thread: Thread) -> Stop:
        self._left -= 1
        is_now = not self._left
        if is_now and self._when == "before":
            self._ask()
        try:
            return self._wait(thread)
        finally:
            if is_now and self._when == "after":
                self._ask()

    def _ask(self) -> None:
        self.has_asked = True
        os.kill(os.getpid(), signal.SIGTERM)


def _dump(pid: int, directory: Path, options: DumpOptions, number: int, when: str) -> int:
    """In a child, which goes on for as long as a program does after it was asked to end; how it has come out."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        interrupts.catch()
        waits = _Waits(number, when)
        Thread.wait = waits.as_function()  # type: ignore[method-assign, assignment]
        try:
            dump(pid, directory, options)
            code = _DEAF if waits.has_asked else _NOT_ASKED
        except interrupts.Interrupted as stop:
            code = _STOPPED if stop.__context__ is None else _FAILED
        except TorporError as error:
            os.write(2, f"{error.describe()}\n".encode())
            code = _FAILED
    finally:
        os._exit(code)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vectors", DumpOptions(leave_running=True)),
        ("threads", DumpOptions(leave_running=True)),
        ("private_memory", DumpOptions(leave_running=True, snapshot="always")),
    ],
)
def test_the_target_goes_on(name: str, options: DumpOptions, when: str, tmp_path: Path) -> None:
    n_stopped = 0
    with Workload.start(name) as workload, ProcessWatch(workload.pid) as watch:
        workload.wait_ready()
        before = addresses(workload.pid)
        while came := _dump(workload.pid, tmp_path, options, n_stopped + 1, when):
            number = n_stopped = n_stopped + 1
            assert came == _STOPPED, f"asked at wait {number}"
            assert not watch.has_ended(), f"the target has died of wait {number}"
            check_free(workload.pid)
            assert addresses(workload.pid) == before, f"something is left in it after wait {number}"
        assert n_stopped
        dump(workload.pid, tmp_path, DumpOptions(leave_running=True))
        print(f"asked at {n_stopped} instants")
        workload.expect_pass()
