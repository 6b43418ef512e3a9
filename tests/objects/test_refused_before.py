"""What a dump refuses for good it refuses before it freezes anything: the hook before the freeze is never called."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socketpair

import pytest

from harness import engine
from harness.scripts import awaited
from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.engine.dump import preflight
from torpor.engine.options import DumpOptions
from torpor.objects.files import settings
from torpor.objects.policy import FilePolicy, Policies

pytestmark = pytest.mark.root

_PROGRAM = """
import fcntl, os, signal, socket, sys
os.chdir(sys.argv[2])
{body}
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.pause()
"""
_TCP = (
    "l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()\n"
    "c = socket.create_connection(l.getsockname()); a, _ = l.accept()"
)
_LOCK = "f = open('locked', 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
_GHOST = "f = open('one', 'wb'); f.write(bytes(1 << 20)); f.flush(); os.unlink('one')"
_PEER = "number = int(sys.argv[3])"
_XDP = "s = socket.socket(44, socket.SOCK_RAW)"
#: A thread that has unshared something (include/uapi/linux/sched.h).
_APART = """
import ctypes, threading
def leave():
    assert ctypes.CDLL(None).unshare({flag:#x}) == 0
    {then}
    left.set(); threading.Event().wait()
left = threading.Event(); threading.Thread(target=leave, daemon=True).start(); left.wait()
"""
_LINE = "import struct\na, b = os.openpty(); fcntl.ioctl(b, 0x5423, struct.pack('i', 27))"
_QUEUED = "a, b = socket.socketpair(); c, d = socket.socketpair()\nsocket.send_fds(c, [b'x'], [b.fileno()]); b.close()"


def dumped(body: str, *options: str) -> tuple[str, list[str]]:
    """The log of a dump that failed, empty for one that did not; which hooks were called."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    with tempfile.TemporaryDirectory() as text, ours:
        directory = Path(text)
        (directory / "images").mkdir()
        inherited = [theirs.fileno()] if "argv[3]" in body else []
        hook = directory / "hook"
        hook.write_text(f"#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >> {text}/called\n")
        hook.chmod(0o755)
        options = ("--action-script", str(hook), *options)
        log = ""
        with awaited(_PROGRAM.format(body=body), text, *inherited, pass_fds=inherited) as process:
            theirs.close()
            try:
                engine.dump(process.pid, directory / "images", leave_running=True, options=options)
            except engine.EngineError as error:
                log = error.log
            assert process.poll() is None, "the program has ended"
        called = directory / "called"
        return log, called.read_text().split() if called.exists() else []


@pytest.mark.parametrize(
    ("body", "said", "allowed"),
    [
        (_TCP, "a TCP connection to port", ("--tcp-close",)),
        (_LOCK, "a file lock is held", ("--file-locks",)),
        (_GHOST, "more than --ghost-limit", ("--ghost-limit", "4M")),
        (_PEER, "connected to a socket outside of the tree", ()),
        (_XDP, "a socket of family 44", ()),
        (_LINE, "has line discipline 27", ()),
    ],
    ids=["tcp", "lock", "ghost", "peer", "family", "line"],
)
def test_nothing_is_frozen(body: str, said: str, allowed: Sequence[str]) -> None:
    log, called = dumped(body, *(("--ghost-limit", "4K") if body is _GHOST else ()))
    assert said in log
    assert called == []
    if allowed:
        log, called = dumped(body, *allowed)
        assert not log
        assert "pre-dump" in called


@pytest.mark.parametrize(
    ("flag", "what"),
    [
        (0x40000000, "a network namespace"), (0x04000000, "a uts namespace"), (0x20000, "a mount namespace"),
        (0x200, "a working directory, root or umask"), (0x400, "a descriptor table"),
        (0x20000000, "a pid namespace for its children"),
    ],
    ids=["net", "uts", "mnt", "fs", "files", "pid"],
)  # fmt: skip
def test_a_thread_that_has_left_its_process(flag: int, what: str) -> None:
    log, called = dumped(_APART.format(flag=flag, then="os.umask(0o123)" if flag == 0x200 else ""))
    assert re.search(rf"its thread \d+ has {what}.* of its own", log)
    assert called == []


def test_a_peer_in_a_queue_is_not_outside() -> None:
    log, called = dumped(_QUEUED)
    assert not log
    assert "pre-dump" in called


def test_a_terminal_of_others() -> None:
    master, slave = os.openpty()
    try:
        body = f"t = os.open({os.ttyname(slave)!r}, os.O_RDWR | os.O_NOCTTY)"
        log, called = dumped(body)
        assert "is driven from outside of the tree" in log
        assert called == []
        log, called = dumped(body, "--shell-job")
        assert not log
    finally:
        os.close(master)
        os.close(slave)


def test_a_file_that_is_closed_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that goes on while it is looked at: what is asked of one of its files may find it closed."""
    body = "import fcntl, os, signal; a = open('/proc/self/status'); f = os.memfd_create('x'); os.write(1, b'x');"
    body += "fcntl.lockf(f, fcntl.LOCK_EX); os.write(1, b'y'); signal.pause()"
    gone: list[str] = []

    def closed(path: str) -> int:
        gone.append(path)
        raise FileNotFoundError(errno.ENOENT, path)

    monkeypatch.setattr(settings, "filesystem_type", closed)
    with open("/dev/null", "wb") as null, subprocess.Popen(
        [sys.executable, "-S", "-c", body], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=null,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            while not process.stdout.read(1).endswith(b"y"):
                assert process.poll() is None
            options = DumpOptions(policies=replace(Policies(), files=replace(FilePolicy(), external_pipes=True)))
            with pytest.raises(RefusedError, match="a file lock is held"):
                preflight.check(Pid(process.pid), options)
        finally:
            process.kill()
    assert gone
