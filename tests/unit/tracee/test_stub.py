"""The stub's descriptors: each is at its number, whatever numbers they had with us."""

import os

import pytest

from torpor.tracee import stub
from torpor.tracee.remote import kill_and_reap

pytestmark = pytest.mark.root


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
