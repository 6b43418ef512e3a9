"""Whom unix sockets show as their other ends: of the tree, dead, outside of it, unknown to its user namespace."""

import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import engine
from harness.events import become_subreaper, time_limit_s
from harness.flavours import Flavour, carry_through, default_flavours, start

_PROGRAM = """
import os, signal, socket, struct, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def shown(s):
    return struct.unpack("iII", s.getsockopt(socket.SOL_SOCKET, 17, 12))[1:]
listener = socket.socket(fileno=int(sys.argv[2]))
early = socket.socket(socket.AF_UNIX)
early.connect(listener.getsockname())
said = [shown(early)]
os.write(int(sys.argv[1]), b"x")
os.close(int(sys.argv[1]))
signal.sigwait([signal.SIGUSR1])
late = socket.socket(socket.AF_UNIX)
late.connect(listener.getsockname())
said += [shown(listener), shown(early), shown(late)]
with open(sys.argv[3], "w") as file:
    file.write(repr(said))
"""
_WHO = (4242, 4343)


@pytest.mark.root
@pytest.mark.parametrize("flavour", default_flavours())
def test_peer_cred(flavour: Flavour) -> None:
    with start(flavour, "peer_cred") as workload:
        workload.wait_ready()
        # What a restore has made must look to the next dump like what was.
        for _ in range(2):
            carry_through(flavour, workload)
        workload.expect_pass()


@contextmanager
def _listening(listener: socket.socket, *, stays: bool) -> Iterator[None]:
    """Somebody outside of the tree lets it listen, and is there or not."""
    reader, writer = os.pipe()
    done, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setgid(_WHO[1])
        os.setuid(_WHO[0])
        listener.listen(5)
        listener.close()
        os.close(writer)
        os.close(tell)
        if stays:
            os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.close(tell)
    try:
        assert os.read(done, 1) == b""
        if not stays:
            os.waitpid(pid, 0)
        yield
    finally:
        os.close(done)
        os.close(writer)
        if stays:
            os.waitpid(pid, 0)


@pytest.mark.root
@pytest.mark.parametrize("prefix", [(), ("unshare", "-U", "-r")], ids=["host", "user"])
@pytest.mark.parametrize("stays", [False, True], ids=["dead", "alive"])
def test_who_listens_is_outside(stays: bool, prefix: Sequence[str]) -> None:
    become_subreaper()
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        images, said = Path(directory) / "images", Path(directory) / "said"
        os.chmod(directory, 0o755)
        images.mkdir()
        listener.bind(b"\0torpor-outside-" + os.urandom(8).hex().encode())
        with _listening(listener, stays=stays):
            with open("/dev/null", "r+b") as null, open(Path(directory) / "log", "wb") as log:
                process = subprocess.Popen(
                    [*prefix, sys.executable, "-c", _PROGRAM, str(writer), str(listener.fileno()), str(said)],
                    stdin=null, stdout=log, stderr=log, pass_fds=(writer, listener.fileno()), start_new_session=True,
                )  # fmt: skip
            os.close(writer)
            assert os.read(reader, 1) == b"x", (Path(directory) / "log").read_text()
            os.close(reader)
            listener.close()
            for cycle in range(2):
                engine.dump(process.pid, images)
                os.waitpid(process.pid, 0) if cycle else process.wait()
                engine.restore(images)
            with os.fdopen(os.pidfd_open(process.pid), closefd=True) as watch:
                os.kill(process.pid, 10)
                select.select([watch], [], [], time_limit_s(30))
            os.waitpid(process.pid, 0)
        before, *after = eval(said.read_text())
        assert before == ((65534, 65534) if prefix else _WHO)
        assert after == [before] * 3


@pytest.mark.root
def test_a_waiting_message_comes_from_a_dead_process() -> None:
    body = _PROGRAM.replace("listener = socket.socket(fileno=int(sys.argv[2]))", """
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(b"\\0torpor-dead-" + os.urandom(8).hex().encode())
listener.listen(5)
near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
child = os.fork()
if not child:
    os.setgid(4343)
    os.setuid(4242)
    near.send(b"from the dead")
    os._exit(0)
os.waitpid(child, 0)
""").replace("said += [", """
_, control, _, _ = far.recvmsg(100, 100)
said += [child, *(struct.unpack("iII", data) for _, _, data in control)]
[""")  # fmt: skip
    reader, writer = os.pipe()
    become_subreaper()
    with tempfile.TemporaryDirectory() as directory:
        images, told = Path(directory) / "images", Path(directory) / "said"
        images.mkdir()
        with open("/dev/null", "r+b") as null, open(Path(directory) / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", body, str(writer), "-1", str(told)],
                stdin=null, stdout=log, stderr=log, pass_fds=(writer,), start_new_session=True,
            )  # fmt: skip
        os.close(writer)
        assert os.read(reader, 1) == b"x", (Path(directory) / "log").read_text()
        os.close(reader)
        for cycle in range(2):
            engine.dump(process.pid, images)
            os.waitpid(process.pid, 0) if cycle else process.wait()
            engine.restore(images)
        with os.fdopen(os.pidfd_open(process.pid), closefd=True) as watch:
            os.kill(process.pid, 10)
            select.select([watch], [], [], time_limit_s(30))
        os.waitpid(process.pid, 0)
        _, child, found = eval(told.read_text())
        assert found == (child, *_WHO)
