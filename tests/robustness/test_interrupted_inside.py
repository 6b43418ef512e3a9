"""A signal that asks the dumper to end comes while a task of the target's works for it: the target never notices.

At every instant at which the dumper waits for a thread of the target's, one after the other, in all kinds of dumps.
"""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.events import ProcessWatch
from harness.processes import reap_adopted
from harness.workload import Workload
from robustness.test_dumper_killed import addresses, check_free
from torpor.base.errors import TorporError
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.engine.restore.run import restore
from torpor.kernel import interrupts
from torpor.tracee.thread import Stop, Thread

pytestmark = pytest.mark.root

_NOT_ASKED, _STOPPED, _FAILED, _DEAF = 0, 3, 4, 5


class _Waits:
    """Has a signal come as the wait with this number begins, or has just ended."""

    def __init__(self, number: int, when: str, which: int) -> None:
        self._left, self._when, self._which = number, when, which
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
        os.kill(os.getpid(), self._which)


def _in_a_child(work: Callable[[], object], number: int, when: str, *, by_command: bool = True) -> int:
    """*work* is asked to end at a wait: how it has come out.  A child, which goes on for as long as a command does."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if by_command:
            interrupts.catch()
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        waits = _Waits(number, when, signal.SIGTERM if by_command else signal.SIGINT)
        Thread.wait = waits.as_function()  # type: ignore[method-assign, assignment]
        try:
            work()
            code = _DEAF if waits.has_asked else _NOT_ASKED
        except interrupts.Interrupted as stop:
            code = _STOPPED if by_command and stop.__context__ is None else _FAILED
        except KeyboardInterrupt:
            code = _FAILED if by_command else _STOPPED
        except TorporError as error:
            os.write(2, f"{error.describe()}\n".encode())
            code = _FAILED
    finally:
        os._exit(code)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "options", "by_command"),
    [
        ("vectors", DumpOptions(leave_running=True), True),
        ("vectors", DumpOptions(leave_running=True), False),
        ("threads", DumpOptions(leave_running=True), True),
        ("private_memory", DumpOptions(leave_running=True, snapshot="always"), True),
    ],
)
def test_the_target_goes_on(name: str, options: DumpOptions, by_command: bool, when: str, tmp_path: Path) -> None:
    n_stopped = 0
    with Workload.start(name) as workload, ProcessWatch(workload.pid) as watch:
        workload.wait_ready()
        before = addresses(workload.pid)
        work = partial(dump, workload.pid, tmp_path, options)
        while came := _in_a_child(work, n_stopped + 1, when, by_command=by_command):
            number = n_stopped = n_stopped + 1
            assert came == _STOPPED, f"asked at wait {number}"
            assert not watch.has_ended(), f"the target has died of wait {number}"
            check_free(workload.pid)
            assert addresses(workload.pid) == before, f"something is left in it after wait {number}"
        assert n_stopped
        dump(workload.pid, tmp_path, DumpOptions(leave_running=True))
        print(f"asked at {n_stopped} instants")
        workload.expect_pass()


@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_left_of_a_restore(when: str) -> None:
    """Or all of it runs: from one instant on."""
    n_stopped = 0
    with Workload.start("threads") as workload:
        workload.wait_ready()
        workload.dump()
        work = partial(restore, workload.images)
        while (came := _in_a_child(work, n_stopped + 1, when)) == _STOPPED:
            n_stopped += 1
            reap_adopted()
            assert not Path(f"/proc/{workload.pid}").exists(), f"something is left after wait {n_stopped}"
        # Asked at the last waits it has been let go already.
        assert n_stopped and came in (_DEAF, _NOT_ASKED), f"asked at wait {n_stopped + 1}"
        print(f"asked at {n_stopped} instants")
        workload.runs_as(workload.pid)
        workload.expect_pass()
