"""Large memory, compared with the parent's piece by piece: of children with children, and of others."""

import os
import signal
import sys

import pytest

from harness.processes import find_tree
from harness.program import Program

pytestmark = pytest.mark.root

#: The root has one child that has a child, and one that has none; each writes to a page of its own.
PROGRAM = r"""
import mmap, os, signal

SIZE, PAGE = 12 << 20, 4096
memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, SIZE, PAGE):
    memory[at : at + 8] = at.to_bytes(8, "little")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

def live(number):
    memory[number * PAGE] = 255
    print(f"ready {number}", flush=True)
    signal.sigwait([signal.SIGUSR1])
    for at in range(0, SIZE, PAGE):
        expected = at.to_bytes(8, "little")
        if at == number * PAGE:
            expected = b"\xff" + expected[1:]
        assert memory[at : at + 8] == expected, (number, at)
    print(f"right {number}", flush=True)
    signal.pause()

if not os.fork():
    if not os.fork():
        live(3)
    live(1)
if not os.fork():
    live(2)
live(0)
"""


def test_a_large_family_comes_back() -> None:
    with Program() as program:
        program.start([sys.executable, "-c", PROGRAM])
        program.wait_log("ready", count=4)
        program.sleep_and_wake()
        for pid in find_tree(program.mark, (program.pid,)):
            os.kill(pid, signal.SIGUSR1)
        program.wait_log("right", count=4)
