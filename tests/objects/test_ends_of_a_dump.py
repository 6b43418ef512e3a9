"""The four ends of a dump: the tree is killed, left running or left stopped, or the dump fails.

What was changed outside of the tree, or in it, is taken back at each end but the first, in an order, and with the tree
in a state, that those rely on who change it.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions
from torpor.kernel.procfs.stat import read_stat
from torpor.objects.files import locks
from torpor.objects.outside import Lasting
from torpor.objects.session import DumpContext, DumpStage
from torpor.objects.undo import LIVES, End

pytestmark = pytest.mark.root

#: How the process is, as /proc/PID/stat has it.  Whoever has dumped it has also waited for it, as its parent.
TRACED, STOPPED, SLEEPS, DEAD = "t", "T", "S", ""
#: It is on its way: it has, or waits for, a processor, a page or a lock.
BUSY = ("R", "D")


class Settling(Lasting):
    """Something that is settled when the tree is dead."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def settle(self) -> None:
        self._action()


class Ends:
    """A dump of a process that sleeps, and what is done at its end: (name, state of the process)."""

    def __init__(self, pid: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pid, self.directory = pid, directory
        self.done: list[tuple[str, str]] = []
        #: The actions that fail, by their names.
        self.fails: dict[str, Exception] = {}
        before = locks.dump

        def dump_locks(context: DumpContext) -> None:
            before(context)
            self._register(context)

        monkeypatch.setattr(locks, "dump", dump_locks)

    def _register(self, context: DumpContext) -> None:
        for number in (1, 2):
            context.undo.add(self._action(f"undo {number}"))
            context.undo.add(self._action(f"undo, stopped too {number}"), (*LIVES, End.STOPPED))
            context.outside.add(Settling(self._action(f"after kill {number}")))
            context.at(DumpStage.CLOSED, self._action(f"close {number}"))

    def _action(self, name: str) -> Callable[[], None]:
        def act() -> None:
            self.done.append((name, self.state()))
            if name in self.fails:
                raise self.fails[name]

        return act

    def state(self) -> str:
        """Of one that has just been told to stop or to sleep, when it does."""
        try:
            while (state := read_stat(Pid(self.pid)).state) in BUSY:
                os.sched_yield()
        except FileNotFoundError:
            return DEAD
        return state

    def dump(self, **options: object) -> None:
        dump(self.pid, self.directory, DumpOptions(**options))  # type: ignore[arg-type]

    def has_images(self) -> bool:
        return (self.directory / "inventory.img").exists()


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    null = subprocess.DEVNULL
    with subprocess.Popen(
        ["sleep", "1000"], stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/"
    ) as process:
        made = Ends(process.pid, tmp_path, monkeypatch)
        try:
            assert made.state() == SLEEPS
            yield made
        finally:
            process.kill()


UNDOS = ["undo, stopped too 2", "undo 2", "undo, stopped too 1", "undo 1"]
CLOSES = ["close 1", "close 2"]


def in_state(state: str, *names: str) -> list[tuple[str, str]]:
    return [(name, state) for name in names]


def test_killed(ends: Ends) -> None:
    """Nothing is taken back; what comes after is done in the order in which it was asked for."""
    ends.dump()
    assert ends.done == in_state(DEAD, "after kill 1", "after kill 2", *CLOSES)
    assert ends.has_images()


def test_left_running(ends: Ends) -> None:
    """All is taken back while nobody runs, the newest first; what takes its time is done when all do."""
    ends.dump(leave_running=True)
    assert ends.done == in_state(TRACED, *UNDOS) + in_state(SLEEPS, *CLOSES)
    assert ends.has_images()


def test_left_stopped(ends: Ends) -> None:
    """Only what says so is taken back; the rest stays for what is to come, as the lock on the network does."""
    ends.dump(leave_stopped=True)
    undone = [name for name in UNDOS if "stopped too" in name]
    assert ends.done == in_state(TRACED, *undone) + in_state(STOPPED, *CLOSES)
    assert ends.has_images()
    os.kill(ends.pid, signal.SIGCONT)


def _refuse(name: str, pid: int) -> None:
    if name == "post-dump":
        raise TorporError("the hook says no")


def test_failed(ends: Ends) -> None:
    """All is taken back while nobody runs, and the tree runs on."""
    with pytest.raises(TorporError, match="the hook says no"):
        ends.dump(notify=_refuse)
    assert ends.done == in_state(TRACED, *UNDOS) + in_state(SLEEPS, *CLOSES)
    assert ends.state() == SLEEPS


@pytest.mark.parametrize("error", [TorporError("badly"), OSError("badly"), ValueError("badly")])
def test_what_fails_when_a_dump_has_failed_is_a_warning(
    ends: Ends, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    """It neither hides why the dump has failed, nor keeps the rest from being taken back."""
    ends.fails["undo 2"] = ends.fails["close 1"] = error
    with pytest.raises(TorporError, match="the hook says no"):
        ends.dump(notify=_refuse)
    assert ends.done == in_state(TRACED, *UNDOS) + in_state(SLEEPS, *CLOSES)
    assert ends.state() == SLEEPS
    assert capfd.readouterr().err.count("badly") == 2


def test_what_fails_when_the_tree_is_left_running_is_told(ends: Ends) -> None:
    """It is an error of the dump, which has then failed: the rest is taken back, and the tree runs on."""
    ends.fails["undo 2"] = TorporError("undone badly")
    with pytest.raises(TorporError, match="undone badly"):
        ends.dump(leave_running=True)
    assert ends.done == in_state(TRACED, *UNDOS) + in_state(SLEEPS, *CLOSES)
    assert not ends.has_images()
    assert ends.state() == SLEEPS


@pytest.mark.parametrize("error", [TorporError("badly"), OSError("badly")])
def test_what_fails_when_the_tree_is_dead_is_a_warning(
    ends: Ends, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    ends.fails["after kill 1"] = error
    ends.dump()
    assert ends.done == in_state(DEAD, "after kill 1", "after kill 2", *CLOSES)
    assert "the checkpoint is complete, but afterwards: badly" in capfd.readouterr().err
    assert ends.has_images()
