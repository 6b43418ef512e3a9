"""A job of an interactive shell, restored from another one: in the foreground, and in the background with ``&``."""

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import engine
from harness.events import become_subreaper, time_limit_s
from harness.skips import missing

pytestmark = pytest.mark.root

_PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("INTERRUPTED", flush=True), os._exit(3)))
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    print("tick", flush=True)
    time.sleep(0.05)
"""


class _Terminal:
    """An interactive bash, and what it says."""

    def __init__(self) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "PROMPT> "
            os.environ.pop("PROMPT_COMMAND", None)
            os.closerange(3, 4096)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait(self, word: str) -> str:
        """Until *word* has been said; all that was."""
        said, until = "", time.monotonic() + time_limit_s(20)
        while word not in said:
            assert select.select([self._fd], [], [], max(until - time.monotonic(), 0))[0], f"no {word} in {said!r}"
            try:
                said += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:
                pytest.fail(f"the shell is gone; it said {said!r}")
        return said

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextmanager
def _terminal() -> Iterator[_Terminal]:
    made = _Terminal()
    try:
        made.wait("PROMPT>")
        yield made
    finally:
        made.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[int]:
    """A job that was checkpointed into tmp_path/images; its pid, where it may run again."""
    if subprocess.run(["bash", "-c", ":"], check=False).returncode:
        missing("bash")
    become_subreaper()
    (tmp_path / "program").write_text(_PROGRAM)
    (tmp_path / "images").mkdir()
    pid_file = tmp_path / "pid"
    with _terminal() as terminal:
        terminal.type(f"{shlex.join([sys.executable, '-S', str(tmp_path / 'program'), str(pid_file)])}\n")
        terminal.wait("tick")
        pid = int(pid_file.read_text())
        engine.dump(pid, tmp_path / "images", options=["--shell-job"])
        terminal.wait("PROMPT>")
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _restore(images: Path) -> str:
    return shlex.join([*engine.command(), "restore", "--shell-job", "-D", str(images), "-o", "log"])


def test_in_the_foreground(job: int, tmp_path: Path) -> None:
    with _terminal() as terminal:
        terminal.type(f"{_restore(tmp_path / 'images')}\n")
        terminal.wait("tick")
        terminal.type("\x03")
        assert "INTERRUPTED" in terminal.wait("PROMPT>")
        terminal.type("echo al''ive\n")
        terminal.wait("alive")


def test_a_job_that_is_stopped_is_stopped_for_the_shell(job: int, tmp_path: Path) -> None:
    with _terminal() as terminal:
        terminal.type(f"{_restore(tmp_path / 'images')}\n")
        terminal.wait("tick")
        terminal.type("\x1a")
        terminal.wait("Stopped")
        terminal.type("echo al''ive\n")
        terminal.wait("alive")
        terminal.type("fg\n")
        terminal.wait("restore --shell-job")
        terminal.wait("tick")
        terminal.type("\x03")
        assert "INTERRUPTED" in terminal.wait("PROMPT>")


def test_in_the_background_the_terminal_stays_the_shells(job: int, tmp_path: Path) -> None:
    with _terminal() as terminal:
        terminal.type(f"{_restore(tmp_path / 'images')} &\n")
        terminal.wait("tick")
        terminal.type("echo al''ive\n")
        terminal.wait("alive")
        terminal.type("fg\n")
        terminal.wait("restore --shell-job")
        terminal.wait("tick")
        terminal.type("\x03")
        terminal.wait("INTERRUPTED")
        terminal.type("echo al''so\n")
        terminal.wait("also")
