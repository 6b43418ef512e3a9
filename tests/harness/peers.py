"""Commands that wait for the other end of a connection, on loopback and on a port that is free."""

import os
import random
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import engine
from harness.events import time_limit_s

LOOPBACK = "127.0.0.1"
#: Below those of net.ipv4.ip_local_port_range.
_NOT_GIVEN = 20000, 32768


def free_port() -> int:
    """A port that nobody has just now, and that the kernel gives nobody who connects or does not care."""
    while True:
        port = random.randrange(*_NOT_GIVEN)
        with socket.socket() as found, suppress(OSError):
            found.bind((LOOPBACK, port))
            return port


class Waiting:
    """A command in the background; `log` is what it has said."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def end(self) -> int:
        """Wait for it; its exit code."""
        return self.process.wait(time_limit_s(60))


@contextmanager
def waiting(
    words: Sequence[str], directory: Path, *, command: Sequence[str] | None = None, ready: bool = True
) -> Iterator[Waiting]:
    """`criu WORDS -D DIRECTORY` in the background, from the moment at which it says by --status-fd that it is ready.

    One that is still there at the end is killed.
    """
    log = directory / f"{words[0]}.log"
    told, tell = os.pipe()
    line = [*(command or engine.command()), *words, "-D", str(directory), "-o", str(log), "-v4"]
    if ready:
        line += ["--status-fd", str(tell)]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, pass_fds=[tell])
    os.close(tell)
    found = Waiting(process, log)
    try:
        with open(told, "rb", buffering=0) as stream:
            if ready and stream.read(1) != b"\0":
                raise AssertionError(f"{words[0]} ended before it was ready: {found.log}")
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
