"""Real programs: started, carried through a checkpoint that kills them and a restore, then asked what they still know.

A program runs in a *place*: the host's namespaces, through the `criu` command, or a job of torpor's own.
"""

import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from harness import engine
from harness.events import IN_MODIFY, FileWatch, ProcessWatch, become_subreaper, time_limit_s
from harness.processes import MARK_VARIABLE, kill_tree, new_mark, watch_tree
from harness.skips import missing


class ProgramError(Exception):
    """A program did not do what the test needs of it; the text holds the end of its log."""


def need(*commands: str) -> str:
    """The path of the first of *commands* that is installed; a skip (in CI a failure) if none is."""
    for command in commands:
        for directory in (None, "/usr/sbin:/sbin:/usr/lib/postgresql/15/bin:/usr/lib/postgresql/17/bin"):
            if found := shutil.which(command, path=directory):
                return found
    missing(" or ".join(commands))
    raise AssertionError


class Program:
    """One run of a program in the host's namespaces.  A context manager that leaves nothing behind."""

    is_control = False
    dump_options: Sequence[str] = ()
    restore_options: Sequence[str] = ()

    def __init__(self) -> None:
        become_subreaper()
        self.base = Path(tempfile.mkdtemp(prefix="torpor-real-"))
        self.base.chmod(0o755)
        self.log_file = self.base / "log"
        self.log_file.touch(0o666)
        self.images = self.base / "images"
        self.images.mkdir()
        self.mark = new_mark()
        self.root: ProcessWatch | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a program gets: few and known variables, and the mark by which it is found again."""
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "LC_ALL": "C", "HOME": str(self.base), MARK_VARIABLE: self.mark, **(extra or {})}

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start *command* with its output in the log, nothing of ours attached."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.base,
                env=self.environment(env),
                start_new_session=True,
            )
        self.root = ProcessWatch(self._process.pid)

    @property
    def pid(self) -> int:
        """The root process's pid."""
        assert self.root is not None
        return self.root.pid

    def log(self) -> str:
        """All that was printed."""
        return self.log_file.read_text(errors="replace")

    def wait_log(self, pattern: str, *, count: int = 1, timeout_s: float = 60) -> None:
        """Wait until *pattern* (a regular expression) stands *count* times in the log."""
        wait_file(self.log_file, lambda text: len(re.findall(pattern, text)) >= count, self, timeout_s)

    def wait_file(self, path: Path, n_lines: int, timeout_s: float = 60) -> None:
        """Wait until *path* has *n_lines* lines."""
        wait_file(path, lambda text: text.count("\n") >= n_lines, self, timeout_s)

    def checkpoint(self) -> None:
        """Checkpoint; all processes are gone afterwards and their pids free."""
        assert self.root is not None
        watches = watch_tree(self.mark, (self.pid,))
        try:
            engine.dump(self.pid, self.images, options=self.dump_options)
            for watch in watches:
                if not watch.wait_ended(time_limit_s(10)):
                    raise ProgramError(f"pid {watch.pid} is still there after the checkpoint")
            self._reap(watches)
        finally:
            for watch in watches:
                watch.close()

    def restore(self) -> None:
        """Restore."""
        pid = engine.restore(self.images, options=self.restore_options)
        if self.root is not None:
            self.root.close()
        self.root = ProcessWatch(pid)

    def sleep_and_wake(self) -> None:
        """Checkpoint, then restore."""
        self.checkpoint()
        self.restore()

    def _reap(self, watches: Sequence[ProcessWatch]) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.wait()
        for watch in watches:
            watch.reap()
        # A child forked after the watches were made has become ours as well, and holds its pid until it is waited for.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def close(self) -> None:
        """Kill what is left and remove the files."""
        try:
            kill_tree(self.mark, self.root)
            if self._process is not None and self._process.returncode is None:
                self._process.wait()
        finally:
            if self.root is not None:
                self.root.close()
            if os.environ.get("TORPOR_KEEP"):
                print(f"kept: {self.base}")
            else:
                shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None and self.log_file.exists():
            error.add_note("---- its log\n" + "\n".join(self.log().splitlines()[-40:]))
        self.close()


class Control(Program):
    """The same without us: if this fails, the test is wrong."""

    is_control = True

    def checkpoint(self) -> None:
        pass

    def restore(self) -> None:
        pass


class JobProgram(Program):
    """The same, as a torpor job in namespaces of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"test-{self.mark[-12:]}"
        self._state = {"TORPOR_STATE": str(self.base / "state")}

    def _torpor(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        line = [sys.executable, "-m", "torpor.cli.torpor", *arguments]
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {}), **self._state},
            timeout=time_limit_s(60),
            check=False,
            cwd=self.base,
        )
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise ProgramError(f"torpor {' '.join(arguments)} ended with {done.returncode}: {text}")
        return text

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self._torpor("run", "-d", "--name", self.name, "--", *command, env=self.environment(env))
        self.root = ProcessWatch(self._job_pid())

    def _job_pid(self) -> int:
        import json

        jobs = json.loads(self._torpor("ps", "--json"))
        return int(next(job["pid"] for job in jobs if job["name"] == self.name))

    def log(self) -> str:
        return self._torpor("logs", self.name)

    def wait_log(self, pattern: str, *, count: int = 1, timeout_s: float = 60) -> None:
        path = Path(self._torpor("logs", "--path", self.name).strip())
        wait_file(path, lambda text: len(re.findall(pattern, text)) >= count, self, timeout_s)

    def checkpoint(self) -> None:
        watches = watch_tree(self.mark, (self.pid,))
        try:
            self._torpor("checkpoint", self.name)
            for watch in watches:
                if not watch.wait_ended(time_limit_s(10)):
                    raise ProgramError(f"pid {watch.pid} is still there after the checkpoint")
            self._reap(watches)
        finally:
            for watch in watches:
                watch.close()

    def restore(self) -> None:
        self._torpor("restore", self.name)
        if self.root is not None:
            self.root.close()
        self.root = ProcessWatch(self._job_pid())

    def close(self) -> None:
        try:
            if self.root is not None:
                self._torpor("kill", "--signal", "KILL", "--remove", self.name)
        finally:
            super().close()


#: Where each real program is tested.
PLACES: dict[str, type[Program]] = {"control": Control, "host": Program, "job": JobProgram}


def wait_file(path: Path, is_right: Callable[[str], bool], program: Program, timeout_s: float) -> None:
    """Wait until the text of *path* is right, asking again after each change.

    ProgramError if the program ends first, or time is up.
    """
    deadline = time.monotonic() + time_limit_s(timeout_s)
    with FileWatch(path, IN_MODIFY) as changes:
        poll = select.poll()
        poll.register(changes.fileno(), select.POLLIN)
        if program.root is not None:
            poll.register(program.root.fileno(), select.POLLIN)
        while not is_right(path.read_text(errors="replace")):
            left_s = deadline - time.monotonic()
            events = poll.poll(max(left_s, 0) * 1000)
            changes.drain()
            ended = program.root is not None and any(fd == program.root.fileno() for fd, _ in events)
            if not events or (ended and not is_right(path.read_text(errors="replace"))):
                raise ProgramError(f"the program {'has ended' if ended else 'did not say what was waited for'}")
