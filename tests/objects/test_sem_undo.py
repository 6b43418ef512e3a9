"""Of SEM_UNDO, which is not carried, a dump warns; of lists that every process with threads has it does not."""

import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness import engine
from harness.scripts import awaited

pytestmark = pytest.mark.root

_PROGRAM = """
import ctypes, os, signal, sys, threading
libc = ctypes.CDLL(None)
how = sys.argv[2]
if how.startswith("threads"):
    threading.Thread(target=signal.pause, daemon=True).start()
ident = libc.semget(0, 1, 0o1600)
def change(undo):
    assert libc.semop(ident, ctypes.byref((ctypes.c_short * 3)(0, 1, undo)), 1) == 0
if how != "threads elsewhere":
    change(0x1000 if "undo" in how else 0)
elif os.fork() == 0:
    change(0x1000)
    os._exit(0)
else:
    os.wait()
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""


def _running(how: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return awaited(_PROGRAM, how, prefix=("unshare", "--ipc"))


@pytest.mark.parametrize(
    ("how", "told"),
    [("undo", True), ("threads, undo", True), ("plain", False), ("threads elsewhere", False)],
)
def test_what_is_lost_is_told(how: str, told: bool, tmp_path: Path) -> None:
    with _running(how) as target:
        engine.dump(target.pid, tmp_path)
    assert (tmp_path / "dump.log").read_text().count("SEM_UNDO") == told
    pid = engine.restore(tmp_path)
    try:
        assert os.readlink(f"/proc/{pid}/ns/ipc") != os.readlink("/proc/self/ns/ipc")
    finally:
        os.kill(pid, 9)
