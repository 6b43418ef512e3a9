"""`torpor check` of processes: what can be seen without stopping them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.events import time_limit_s
from harness.skips import need_mounted_root

pytestmark = pytest.mark.root
TORPOR = [sys.executable, "-m", "torpor.cli.torpor"]


@contextmanager
def running(script: str) -> Iterator[int]:
    """A shell in a mount namespace of its own, once its script has said `ready` and waits; its pid."""
    need_mounted_root()
    line = ["unshare", "--mount", "sh", "-c", f"{script}; echo ready; exec cat"]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def check(pid: int, *words: str) -> subprocess.CompletedProcess[str]:
    line = [*TORPOR, "check", str(pid), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(120), check=False)


def test_a_mount_that_could_not_be_made_again_is_in_the_way() -> None:
    need_mounted_root()
    with running("mount -t ramfs none /mnt") as pid:
        done = check(pid)
        assert done.returncode == 1
        assert "in the way: " in done.stdout and "/mnt in the mount namespace" in done.stdout and "ramfs" in done.stdout


def test_what_the_checkpoint_may_be_allowed_is_not_in_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with running(f"exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo ready; exec cat'") as pid:
            refused, allowed = check(pid), check(pid, "--tcp-close", "--external-pipes")
    assert refused.returncode == 1 and f"a TCP connection to port {port}" in refused.stdout
    assert allowed.returncode == 0 and "nothing in the way" in allowed.stdout


def test_who_is_not_there_yet_may_be_in_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=-3, pass_fds=[listener.fileno()]) as process:
            open_to_all, closed = check(process.pid, "--external-pipes"), check(process.pid, "--tcp-close")
            process.kill()
    assert open_to_all.returncode == 0, open_to_all.stdout
    assert f"may be in the way: a connection to port {port}" in open_to_all.stdout
    assert "connection to port" not in closed.stdout


def test_the_machine_is_told_without_a_name() -> None:
    done = subprocess.run([*TORPOR, "check"], capture_output=True, text=True, check=False)
    assert "clone3_set_tid" in done.stdout and "CAP_SYS_PTRACE" in done.stdout
