"""Interactive programs on terminals: with whoever drives them in the tree, and with the terminal left outside."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from harness import engine
from harness.events import become_subreaper, time_limit_s
from harness.processes import watch_tree
from harness.program import Program, need
from harness.terminals import others_get_lower

_NO_MARK = "no process has this mark"
_PROGRAMS = Path(__file__).parent / "programs"


def test_pexpect_in_the_tree(program: Program) -> None:
    """pexpect and the Python that it drives, half a line typed, go to sleep and wake together."""
    go = program.base / "go"
    with others_get_lower():
        program.start([sys.executable, str(_PROGRAMS / "driver.py"), str(go)])
        program.wait_log("prepared")
    program.sleep_and_wake()
    go.touch()
    program.wait_log("finished")


@pytest.fixture
def images() -> Iterator[Path]:
    """A directory for images."""
    become_subreaper()
    path = Path(tempfile.mkdtemp(prefix="torpor-terminal-"))
    yield path
    shutil.rmtree(path)


def _spawn(command: list[str]) -> "pexpect.spawn[str]":
    timeout_s = int(time_limit_s(60))
    environment = {**os.environ, "TERM": "dumb"}
    return pexpect.spawn(command[0], command[1:], encoding="utf-8", timeout=timeout_s, env=environment)


def _sleep(child: "pexpect.spawn[str]", images: Path) -> None:
    """Checkpoint what *child* drives; its terminal goes with it, and all pids are free afterwards."""
    assert child.pid is not None
    watches = watch_tree(_NO_MARK, (child.pid,))
    try:
        engine.dump(child.pid, images, options=["--shell-job"])
        for watch in watches:
            assert watch.wait_ended(time_limit_s(10))
        child.close(force=True)
        for watch in watches:
            if watch.pid != child.pid:
                watch.reap()
    finally:
        for watch in watches:
            watch.close()


def _wake(images: Path) -> "pexpect.spawn[str]":
    """Restore on a terminal of its own, which was another's before."""
    return _spawn([*engine.command(), "restore", "--shell-job", "-D", str(images), "-o", "restore.log", "-v4"])


def test_python_on_another_terminal(images: Path) -> None:
    """An interactive Python goes to sleep on one terminal and wakes on the next."""
    child = _spawn([sys.executable, "-q"])
    child.expect(">>> ")
    child.sendline("secret = 6 * 7")
    child.expect(">>> ")
    _sleep(child, images)
    child = _wake(images)
    try:
        child.sendline("print('it is', secret)")
        child.expect("it is 42")
        child.sendline("import os; print(os.isatty(0), os.tcgetpgrp(0) == os.getpgrp())")
        child.expect("True True")
        child.sendintr()
        child.expect("KeyboardInterrupt")
        child.sendline("exit()")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_bash_on_another_terminal(images: Path) -> None:
    """An interactive bash with a program in the foreground."""
    child = _spawn([need("bash"), "--norc", "--noediting", "-i"])
    child.sendline("PS1='ready> '; secret=42")
    child.expect("ready> $")
    child.sendline("cat")
    child.sendline("echoed")
    child.expect("echoed\r\nechoed")
    _sleep(child, images)
    child = _wake(images)
    try:
        child.sendline("again")
        child.expect("again\r\nagain")
        child.sendintr()
        child.expect("ready> ")
        child.sendline("echo it is $secret")
        child.expect("it is 42")
        child.sendline("exit")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_terminal_from_outside_is_refused(images: Path) -> None:
    """Without --shell-job, a terminal that is driven from outside is named, and the program runs on."""
    child = _spawn([sys.executable, "-q"])
    try:
        child.expect(">>> ")
        assert child.pid is not None
        with pytest.raises(engine.EngineError) as caught:
            engine.dump(child.pid, images)
        assert "/dev/pts/" in caught.value.log and "--shell-job" in caught.value.log
        child.sendline("print('alive', 6 * 7)")
        child.expect("alive 42")
    finally:
        child.close(force=True)
