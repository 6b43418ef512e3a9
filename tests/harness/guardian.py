"""Ends what a test run leaves behind if it is killed itself: ``python -m harness.guardian`` waits for its end.

It is no child of the test run, which counts its children here and there, and outlives it by a moment.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from harness.processes import MARK_VARIABLE, RUN


def start() -> int:
    """Start the guardian of this process; the descriptor that it watches, to be kept open."""
    reader, writer = os.pipe()
    line = ["setsid", "--fork", sys.executable, "-m", "harness.guardian", RUN]
    tests = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    try:
        subprocess.run(
            line,
            stdin=reader,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path},
        )
    finally:
        os.close(reader)
    return writer


def end_all(run: str) -> None:
    """SIGKILL everything that bears a mark of the run, as long as there is something."""
    start_of_mark = f"{MARK_VARIABLE}={run}".encode()
    found = True
    while found:
        found = False
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if any(word.startswith(start_of_mark) for word in path.read_bytes().split(b"\0")):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    found = True


if __name__ == "__main__":
    sys.stdin.read()
    end_all(sys.argv[1])
