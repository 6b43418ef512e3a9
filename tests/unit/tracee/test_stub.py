"""The stub's descriptors: each is at its number, whatever numbers they had with us."""

import os
import subprocess
import sys

import pytest

from torpor.base.errors import TorporError
from torpor.kernel.arch import nr
from torpor.tracee import stub
from torpor.tracee.remote import kill_and_reap

pytestmark = pytest.mark.root

#: Without randomization the second stub is laid out as the first one was.
_IN_THE_WAY = """
import ctypes, sys
from torpor.kernel import vm
from torpor.kernel.arch import nr, stub as program
from torpor.kernel.procfs.maps import read_maps
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.remote import kill_and_reap

_ADDR_NO_RANDOMIZE = 0x0040000
ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)
area = stub.find_area(())
meet = stub._clear_way
found = []
def look(thread, *args):
    found.extend(read_maps(thread.tid))
    meet(thread, *args)
stub._clear_way = look
kill_and_reap([stub.spawn(area, keep_fds={}).thread])
place = next(vma.start for vma in found if vma.name == sys.argv[1])
place = min(place, program.TASK_SIZE - stub.AREA_SIZE)
made = stub.spawn(place, keep_fds={})
batch = Batch()
pid = batch.call(nr.getpid)
made.runner.run(batch)
assert pid.value == made.thread.tgid
left = {vma.name for vma in read_maps(made.thread.tid)}
assert "[vdso]" in left and "[stack]" not in left, left
assert made.vdso.vdso is not None
kill_and_reap([made.thread])
"""


def test_descriptors_change_places() -> None:
    """Two that must swap their numbers, and one that is in its place already."""
    pipes = [os.pipe() for _ in range(3)]
    first, second, third = (reader for reader, _ in pipes)
    inodes = {number: os.fstat(fd).st_ino for number, fd in ((second, first), (first, second), (third, third))}
    area = stub.find_area([])
    made = stub.spawn(area, keep_fds={second: first, first: second, third: third})
    try:
        for number, inode in inodes.items():
            assert os.stat(f"/proc/{made.thread.tgid}/fd/{number}").st_ino == inode
    finally:
        kill_and_reap([made.thread])
        made.life.close()
        for ends in pipes:
            for fd in ends:
                os.close(fd)


@pytest.mark.parametrize("name", ["[stack]", "[vdso]", "[vvar]"])
def test_what_the_kernel_put_in_the_loops_place_makes_way(name: str) -> None:
    """By chance it does: once in some thousand restores the stack of the stub lies where the loop is to be."""
    done = subprocess.run([sys.executable, "-c", _IN_THE_WAY, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_call_that_cannot_be_executed_is_an_error() -> None:
    """Let go again and again, it would fault for ever."""
    area = stub.find_area([])
    made = stub.spawn(area, keep_fds={})
    try:
        with pytest.raises(TorporError, match=r"got signal 11 at 0x1000 while it worked for us"):
            stub.call_at(made.thread, 0x1000, made.thread.get_regs(), nr.getpid)
    finally:
        made.end()
