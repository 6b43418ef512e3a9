"""Borrowing a live process: calls are made in it, and it notices nothing."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.events import time_limit_s
from harness.program import need
from torpor.base.errors import TorporError
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.status import Status, read_status
from torpor.tracee import borrow
from torpor.tracee.batch import Batch, RemoteCallError
from torpor.tracee.borrow import inject
from torpor.tracee.remote import Scratch
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
    assert cat.wait(time_limit_s(20)) == -signal.SIGTERM


_HANDLES_FAULTS = """
import faulthandler, sys
faulthandler.enable()
print("ready", flush=True)
print(sys.stdin.readline(), end="")
"""
_NOWHERE = 0x1000


@pytest.fixture
def handler() -> Iterator[subprocess.Popen[bytes]]:
    """A program that handles SIGSEGV, and waits for a line."""
    line = [sys.executable, "-c", _HANDLES_FAULTS]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def runs_on(process: subprocess.Popen[bytes], before: Status) -> None:
    assert read_status(Pid(process.pid)).caught == before.caught
    assert process.communicate(b"still here\n", timeout=time_limit_s(20))[0] == b"still here\n"
    assert process.returncode == 0


def test_a_fault_of_the_first_call_is_told(handler: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is no more: the file behind it was cut short, say."""
    before = read_status(Pid(handler.pid))
    thread = stopped(handler.pid)
    monkeypatch.setattr(borrow, "find_gadgets", lambda *_: (_NOWHERE, _NOWHERE))
    with pytest.raises(TorporError, match=rf"pid {handler.pid} got signal 11 at {_NOWHERE:#x} while it worked for us"):
        with inject(thread, read_maps(Pid(handler.pid))):
            pass
    thread.detach()
    runs_on(handler, before)


def test_a_fault_of_the_loop_is_told(handler: subprocess.Popen[bytes]) -> None:
    before = read_status(Pid(handler.pid))
    thread = stopped(handler.pid)
    with inject(thread, read_maps(Pid(handler.pid))) as injection, injection.borrow(thread) as runner:
        batch = Batch()
        batch.call(nr.getpid)
        ours = runner.scratch
        runner.scratch = Scratch(_NOWHERE, ours.data, ours.size)
        with pytest.raises(TorporError, match="got signal 11"):
            runner.run(batch)
        runner.scratch = ours
        again = Batch()
        pid = again.call(nr.getpid)
        runner.run(again)
        assert pid.value == handler.pid
    thread.detach()
    runs_on(handler, before)


def test_the_signal_of_a_fault_that_somebody_sends_is_none(handler: subprocess.Popen[bytes]) -> None:
    thread = stopped(handler.pid)
    with inject(thread, read_maps(Pid(handler.pid))) as injection, injection.borrow(thread) as runner:
        os.kill(handler.pid, signal.SIGSEGV)
        batch = Batch()
        pid = batch.call(nr.getpid)
        runner.run(batch)
        assert pid.value == handler.pid
    thread.detach()
    assert handler.wait(time_limit_s(20)) == -signal.SIGSEGV
