"""The engine under test, called the way its users call it: the `criu` command in a process of its own.

This is the only place that knows how. $TORPOR_TEST_ENGINE names another command with the same arguments, such as a CRIU
to try the tests themselves with: TORPOR_TEST_ENGINE=/usr/sbin/criu.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.events import time_limit_s

N_LOG_LINES = 60


class EngineError(Exception):
    """A dump or restore failed; the text holds the end of its log. `returncode` is None if it ran out of time."""

    def __init__(self, text: str, returncode: int | None, log: str) -> None:
        super().__init__(text)
        self.returncode = returncode
        self.log = log


_other_engines: list[Sequence[str]] = []


@contextmanager
def using(engine: Sequence[str]) -> Iterator[None]:
    """Within the block, dumps and restores are done by another command."""
    _other_engines.append(engine)
    try:
        yield
    finally:
        _other_engines.pop()


def command() -> list[str]:
    """What to run, before the subcommand."""
    if _other_engines:
        return list(_other_engines[-1])
    other = os.environ.get("TORPOR_TEST_ENGINE")
    return shlex.split(other) if other else [sys.executable, "-m", "torpor.cli.criu.main"]


def dump(pid: int, directory: Path, *, leave_running: bool = False, options: Sequence[str] = ()) -> None:
    """Dump the tree of `pid` into the directory. Without leave_running it has been killed when this returns.

    Raises EngineError. The log is DIRECTORY/dump.log.
    """
    arguments = ["dump", "-t", str(pid), *(["--leave-running"] if leave_running else []), *options]
    _run(arguments, directory, "dump.log")


def restore(directory: Path, *, options: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> int:
    """Restore the tree dumped into the directory, detached, and return its root's pid.

    The engine gets the descriptors `pass_fds` by the same numbers (for --inherit-fd).
    Raises EngineError. The log is DIRECTORY/restore.log.
    """
    with tempfile.TemporaryDirectory(prefix="torpor-pidfile-") as scratch:
        pidfile = Path(scratch) / "pid"
        _run(["restore", "-d", "--pidfile", str(pidfile), *options], directory, "restore.log", pass_fds)
        return int(pidfile.read_text())


def _run(arguments: list[str], directory: Path, log_name: str, pass_fds: Sequence[int] = ()) -> None:
    line = [*command(), *arguments, "-D", str(directory), "-o", log_name, "-v4"]
    # A file and not a pipe: what is restored may inherit it, and a pipe would then never come to its end.
    with tempfile.TemporaryFile() as output:
        try:
            returncode: int | None = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                timeout=time_limit_s(60),
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            returncode = None
        if returncode == 0:
            return
        output.seek(0)
        said = output.read().decode(errors="replace")
    log_path = directory / log_name
    log = log_path.read_text(errors="replace") if log_path.exists() else "(there is no log)"
    how = "ran out of time" if returncode is None else f"ended with {returncode}"
    tail = "\n".join(log.splitlines()[-N_LOG_LINES:])
    raise EngineError(f"{shlex.join(line)} {how}\n{said}\n---- end of {log_name}\n{tail}", returncode, log)
