"""A terminal that is driven from outside of the tree: whoever asks for the restore gets the master of a new one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events import time_limit_s

pytestmark = pytest.mark.root

#: Reads lines and answers, tells of a Ctrl-C and of the size of its terminal.
_PROGRAM = """
import os, signal, sys
def told(number, frame):
    # Not print(): on a busy machine a second one comes while it prints, and a buffered file is entered only once.
    os.write(1, b"interrupted\\n")
signal.signal(signal.SIGINT, told)
print("ready", flush=True)
while True:
    line = sys.stdin.readline().strip()
    print("got", line, os.get_terminal_size(0).columns, os.tcgetpgrp(0) == os.getpgrp(), flush=True)
"""

#: In a mount namespace of its own, so that the number of the terminal is free.
_INTERRUPT = """
import os, select

def interrupt(fd):
    text = b""
    while b"interrupted" not in text:
        # Again where it comes just before a read: Python looks for signals before that and behind it.
        os.write(fd, b"\\x03")
        while b"interrupted" not in text and select.select([fd], [], [], 0.5)[0]:
            try:
                text += os.read(fd, 1000)
            except OSError as error:
                raise SystemExit(f"nobody has the terminal any more ({error}), after {text!r}") from error
"""

_CONDUCT = """
import fcntl, os, pty, struct, subprocess, sys, tempfile, termios
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions, RestoreOptions
from torpor.engine.restore.run import restore
from torpor.objects.policy import Policies, TerminalPolicy

subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", "/dev/pts"], check=True)
subprocess.run(["mount", "--bind", "/dev/pts/ptmx", "/dev/ptmx"], check=True)

def read_until(fd, wanted):
    text = b""
    while wanted not in text:
        text += os.read(fd, 1000)
    return text

def take_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
program = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=slave, stdout=slave, stderr=slave,
                           preexec_fn=take_terminal, cwd="/")
os.close(slave)
read_until(master, b"ready")
given = []
with tempfile.TemporaryDirectory() as images:
    policies = Policies(("mnt[]",), terminals=TerminalPolicy(orphan_pts_master=True))
    dump(program.pid, images, DumpOptions(policies=policies))
    program.wait()
    os.close(master)
    pid = restore(images, RestoreOptions(policies=policies, orphan_master=lambda fd: given.append(os.dup(fd))))
assert pid == program.pid and len(given) == 1
master = given[0]
try:
    os.write(master, b"hello\\n")
    print(read_until(master, b"True").decode().splitlines()[-1])
    interrupt(master)
    print("interrupted")
finally:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""

#: As the first process in a container of a runtime does: the terminal is its own devpts's, and is its console as well.
_CONTAINED = """
import fcntl, os, pty, signal, socket, subprocess, sys, termios
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", "/dev/pts"], check=True)
subprocess.run(["mount", "--bind", "/dev/pts/ptmx", "/dev/ptmx"], check=True)
master, slave = pty.openpty()
subprocess.run(["mount", "--bind", os.ttyname(slave), "/dev/console"], check=True)
with socket.socket(fileno=int(sys.argv[1])) as outside:
    socket.send_fds(outside, [b"master"], [master])
os.close(master)
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
for number in range(3):
    os.dup2(slave, number)
os.close(slave)
console = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
told = []
signal.signal(signal.SIGINT, lambda number, frame: os.write(1, b"interrupted\\n"))
print("ready", flush=True)
while True:
    line = sys.stdin.readline().strip()
    os.write(console, f"got {line} {os.ttyname(console)} {os.ttyname(0)} {os.tcgetpgrp(0) == os.getpgrp()}\\n".encode())
"""

_CONDUCT_CONTAINED = """
import os, socket, subprocess, sys, tempfile
from torpor.engine.dump.run import dump
from torpor.engine.options import DumpOptions, RestoreOptions
from torpor.engine.restore.run import restore
from torpor.kernel.procfs.task import read_children
from torpor.objects.policy import Policies, TerminalPolicy

def read_until(fd, wanted):
    text = b""
    while wanted not in text:
        text += os.read(fd, 1000)
    return text

ours, theirs = socket.socketpair()
program = subprocess.Popen(["unshare", "--pid", "--mount", "--ipc", "--fork", "--mount-proc", sys.executable, "-c",
                            sys.argv[1], str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd="/",
                           stdin=subprocess.DEVNULL)
theirs.close()
master = socket.recv_fds(ours, 10, 1)[1][0]
ours.close()
read_until(master, b"ready")
policies = Policies(("mnt[]",), terminals=TerminalPolicy(orphan_pts_master=True))
for _ in range(2):
    given = []
    with tempfile.TemporaryDirectory() as images:
        pid = read_children(program.pid)[0] if program else pid
        dump(pid, images, DumpOptions(policies=policies))
        if program:
            program.wait()
            program = None
        os.close(master)
        pid = restore(images, RestoreOptions(policies=policies, orphan_master=lambda fd: given.append(os.dup(fd))))
    master, = given
    os.write(master, b"hello\\n")
    print(read_until(master, b"True").decode().splitlines()[-1])
    interrupt(master)
os.kill(pid, 9)
os.waitpid(pid, 0)
"""


def test_the_master_is_handed_over() -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _INTERRUPT + _CONDUCT, _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit_s(60), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["got hello 77 True", "interrupted"]


@pytest.fixture
def console() -> Iterator[None]:
    """Something to mount a terminal on: a chroot or a container may have no /dev/console."""
    path = Path("/dev/console")
    if path.exists():
        yield
        return
    path.touch()
    yield
    path.unlink()


@pytest.mark.usefixtures("console")
def test_the_console_of_a_container_twice() -> None:
    command = [sys.executable, "-c", _INTERRUPT + _CONDUCT_CONTAINED, _CONTAINED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit_s(60), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["got hello /dev/console /dev/pts/0 True"] * 2
