"""A terminal that is driven from outside of the tree: whoever asks for the restore gets the master of a new one."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

#: Reads lines and answers, tells of a Ctrl-C and of the size of its terminal.
_PROGRAM = """
import os, signal, sys
def told(number, frame):
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, told)
print("ready", flush=True)
while True:
    line = sys.stdin.readline().strip()
    print("got", line, os.get_terminal_size(0).columns, os.tcgetpgrp(0) == os.getpgrp(), flush=True)
"""

#: In a mount namespace of its own, so that the number of the terminal is free.
_CONDUCT = """
import fcntl, os, pty, struct, subprocess, sys, tempfile, termios
from torpor.engine.dump import dump
from torpor.engine.options import DumpOptions, RestoreOptions
from torpor.engine.restore import restore
from torpor.objects.files.model import FilePolicy

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
    policy = FilePolicy(orphan_pts_master=True)
    dump(program.pid, images, DumpOptions(files=policy))
    program.wait()
    os.close(master)
    pid = restore(images, RestoreOptions(files=policy, orphan_master=lambda fd: given.append(os.dup(fd))))
assert pid == program.pid and len(given) == 1
master = given[0]
try:
    os.write(master, b"hello\\n")
    print(read_until(master, b"True").decode().splitlines()[-1])
    os.write(master, b"\\x03")
    read_until(master, b"interrupted")
    print("interrupted")
finally:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


def test_the_master_is_handed_over() -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _CONDUCT, _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["got hello 77 True", "interrupted"]
