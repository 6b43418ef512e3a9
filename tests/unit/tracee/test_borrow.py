"""Borrowing a live process: calls are made in it, and it notices nothing."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from harness.program import need
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.status import read_status
from torpor.tracee.batch import Batch, RemoteCallError
from torpor.tracee.borrow import inject
from torpor.tracee.thread import Thread

pytestmark = pytest.mark.root


@pytest.fixture
def cat() -> Iterator[subprocess.Popen[bytes]]:
    """A cat that waits for input."""
    with subprocess.Popen([need("cat")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"  # it has started, and waits again
        yield process
        process.kill()


def stopped(pid: int) -> Thread:
    thread = Thread(Pid(pid), Pid(pid))
    thread.seize()
    thread.interrupt()
    thread.wait_interrupted()
    return thread


def test_calls_are_made_and_nothing_stays(cat: subprocess.Popen[bytes]) -> None:
    before = read_maps(Pid(cat.pid))
    thread = stopped(cat.pid)
    registers, mask, xstate = thread.get_regs(), thread.get_sigmask(), thread.get_xstate()
    with inject(thread, before) as injection, injection.borrow(thread) as runner:
        batch = Batch()
        pid = batch.call(nr.getpid)
        fd = batch.call(nr.openat, -100, batch.path("/dev/null"), os.O_RDWR, 0)
        wrong = batch.call(nr.close, 999, may_fail=True)
        batch.call(nr.close, fd)
        runner.run(batch)
        assert pid.value == cat.pid
        assert wrong.errno == errno.EBADF
        bad = Batch()
        bad.call(nr.close, 999)
        with pytest.raises(RemoteCallError, match="close"):
            runner.run(bad)
        again = Batch()
        parent = again.call(nr.getppid)
        runner.run(again)
        assert parent.value == os.getpid()
    assert (thread.get_regs(), thread.get_sigmask(), thread.get_xstate()) == (registers, mask, xstate)
    thread.detach()
    assert [(vma.start, vma.end) for vma in read_maps(Pid(cat.pid))] == [(vma.start, vma.end) for vma in before]
    assert cat.stdin and cat.stdout
    cat.stdin.write(b"still here")
    cat.stdin.flush()
    assert cat.stdout.read(10) == b"still here"


def test_a_signal_that_comes_meanwhile_arrives_afterwards(cat: subprocess.Popen[bytes]) -> None:
    thread = stopped(cat.pid)
    with inject(thread, read_maps(Pid(cat.pid))) as injection, injection.borrow(thread) as runner:
        batch = Batch()
        batch.call(nr.getpid)
        runner.run(batch)
        os.kill(cat.pid, signal.SIGTERM)
        batch = Batch()
        batch.call(nr.getpid)
        runner.run(batch)
    assert read_status(Pid(cat.pid)).tracer == os.getpid()
    thread.detach()
    assert cat.wait(20) == -signal.SIGTERM
