"""--inherit-fd: files whose other end is outside of the tree, given anew by whoever restores."""

import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import engine
from harness.events import ProcessWatch, become_subreaper, time_limit_s

pytestmark = pytest.mark.root

_PROGRAM = """
import os, sys
inside, ready, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
wake = os.open(sys.argv[4], os.O_RDWR)
os.close(ready)
os.read(wake, 1)
with open(output, "wb") as stream:
    stream.write(os.read(inside, 100))
"""


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    return reader, writer


def _socket_pair() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def _memfd() -> tuple[int, int]:
    writer = os.memfd_create("torpor-inherited")
    return os.open(f"/proc/self/fd/{writer}", os.O_RDONLY), writer


def _terminal() -> tuple[int, int]:
    outside, inside = pty.openpty()
    return inside, outside


def _name(inside: int) -> str:
    """What --inherit-fd calls the file: pipe:[N], socket:[N], /memfd:NAME, tty[rdev:dev]."""
    if os.isatty(inside):
        info = os.fstat(inside)
        return f"tty[{info.st_rdev:x}:{info.st_dev:x}]"
    return os.readlink(f"/proc/self/fd/{inside}").removesuffix(" (deleted)")


@pytest.mark.parametrize("make", [_pipe, _socket_pair, _memfd, _terminal])
def test_another_one_takes_its_place(make: Callable[[], tuple[int, int]], tmp_path: Path) -> None:
    become_subreaper()
    images, output, wake = tmp_path / "images", tmp_path / "output", tmp_path / "wake"
    images.mkdir()
    os.mkfifo(wake)
    inside, outside = make()
    name = _name(inside)
    process = _start(inside, output, wake)
    pid = process.pid
    external = {"socket": f"unix[{os.fstat(inside).st_ino}]", "tty": name}
    kind = "tty" if name.startswith("tty") else name.partition(":")[0]
    engine.dump(pid, images, options=["--external", external[kind]] if kind in external else [])
    process.wait()
    os.close(inside)
    os.close(outside)
    inside, outside = make()
    engine.restore(images, options=["--inherit-fd", f"fd[{inside}]:{name}"], pass_fds=[inside])
    watch = ProcessWatch(pid)
    os.close(inside)
    os.write(outside, b"given\n")
    wake.write_bytes(b"x")
    assert watch.wait_ended(time_limit_s(10))
    watch.reap()
    watch.close()
    os.close(outside)
    assert output.read_bytes() == b"given\n"


def _start(inside: int, output: Path, wake: Path) -> subprocess.Popen[bytes]:
    reader, writer = os.pipe()
    with open(output.with_name("log"), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(inside), str(writer), str(output), str(wake)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(inside, writer), start_new_session=True,
        )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 1) == b"", "the program did not come up"
    os.close(reader)
    return process
