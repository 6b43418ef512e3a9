"""The caretaker undoes what it was told when its maker is killed, and nothing when it is dismissed."""

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.events import time_limit_s
from torpor.base.ids import Pid
from torpor.kernel.procfs.status import read_status
from torpor.tracee import caretaker
from torpor.tracee.thread import Thread
from torpor.tracee.witness import Witness

_SO_PEEK_OFF = 42


def _value(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF)


def _in_a_child(work: Callable[[int], None]) -> None:
    """Do *work* in a fork that then kills itself."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(writer)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    # Neither the child nor its caretaker keeps what it has inherited.
    assert os.read(reader, 1) == b""
    os.close(reader)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + time_limit_s(10)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _step(connection: socket.socket, value: int) -> caretaker.Step:
    return caretaker.option(connection.fileno(), socket.SOL_SOCKET, _SO_PEEK_OFF, value)


def test_undoes_what_is_left_when_we_are_killed() -> None:
    ours, theirs = socket.socketpair()
    other, peer = socket.socketpair()
    with ours, theirs, other, peer:

        def work(_: int) -> None:
            keeper = caretaker.Caretaker()
            dropped = keeper.add([_step(other, 5)])
            keeper.add([_step(ours, 7)])
            # The first that was told is undone last.
            keeper.add([_step(ours, 9)], instead_of=dropped)

        _in_a_child(work)
        _wait(lambda: _value(ours) == 7)
        assert _value(other) == -1


def test_a_message_is_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def work(_: int) -> None:
            caretaker.Caretaker().add([caretaker.send(ours.fileno(), b"undo")])

        _in_a_child(work)
        theirs.settimeout(time_limit_s(10))
        assert theirs.recv(10) == b"undo"


def test_what_is_announced_is_done_only_with_what_follows() -> None:
    ours, theirs = socket.socketpair()
    other, peer = socket.socketpair()
    with ours, theirs, other, peer:

        def announce(_: int) -> None:
            keeper = caretaker.Caretaker()
            keeper.add([_step(other, 5)])
            keeper.announce([_step(ours, 7)])

        _in_a_child(announce)
        _wait(lambda: _value(other) == 5)
        assert _value(ours) == -1

        def follow(_: int) -> None:
            keeper = caretaker.Caretaker()
            keys = keeper.add([_step(other, 6)])
            keeper.announce([_step(ours, 7)])
            keeper.add([], instead_of=keys)

        _in_a_child(follow)
        _wait(lambda: _value(ours) == 7)
        assert _value(other) == 5


def test_relieved_does_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keeper = caretaker.Caretaker()
        keeper.add([_step(ours, 7)])
        keeper.relieve()
        assert _value(ours) == 7


def test_released_does_nothing_and_hears_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keeper = caretaker.Caretaker()
        keys = keeper.add([_step(ours, 7)])
        keeper.release()
        keeper.drop(keys)
        keeper.dismiss()
        assert _value(ours) == -1


def test_more_descriptors_than_a_message_takes() -> None:
    pairs = [socket.socketpair() for _ in range(300)]

    def work(_: int) -> None:
        caretaker.Caretaker().add([_step(near, 3) for near, _ in pairs])

    _in_a_child(work)
    _wait(lambda: all(_value(near) == 3 for near, _ in pairs))
    for pair in pairs:
        for end in pair:
            end.close()


def test_ends_a_process() -> None:
    victim = os.fork()
    if not victim:
        signal.pause()
        os._exit(0)
    pidfd = os.pidfd_open(victim)

    def _kill_later(_: int) -> None:
        caretaker.Caretaker().add([caretaker.signal_to(pidfd, signal.SIGKILL)])

    _in_a_child(_kill_later)
    _, status = os.waitpid(victim, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    os.close(pidfd)


def test_dismissed_does_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keeper = caretaker.Caretaker()
        keeper.add([_step(ours, 7)])
        keeper.dismiss()
        keeper.dismiss()
        assert _value(ours) == -1


def test_an_eventfd_counts_what_it_did_before() -> None:
    for kind, found in ((0, 0), (0, 9), (os.EFD_SEMAPHORE, 2), (os.EFD_SEMAPHORE, 7)):
        fd = os.eventfd(found, kind | os.EFD_NONBLOCK)

        def work(_: int, fd: int = fd) -> None:
            caretaker.Caretaker().add([caretaker.count(fd, 5)])

        _in_a_child(work)
        line = f"eventfd-count: {5:16x}\n"
        _wait(lambda fd=fd, line=line: line in Path(f"/proc/self/fdinfo/{fd}").read_text())  # type: ignore[misc]
        os.close(fd)


def _dumper(path: Path, steps: list[caretaker.Step], *, ahead: bool) -> tuple[int, int]:
    """A tracer, killed by nobody yet, and its tracee, which writes into *path* whenever it runs; both are ready."""
    reader, writer = os.pipe()
    tracee = os.fork()
    if not tracee:
        while True:
            path.write_bytes(b"runs")
            time.sleep(0.0001)
    tracer = os.fork()
    if not tracer:
        thread = Thread(Pid(tracee), Pid(tracee))
        thread.seize()
        thread.interrupt()
        thread.wait_interrupted()
        path.write_bytes(b"stopped")
        keeper = caretaker.Caretaker()
        keeper.add(steps)
        with keeper.ahead() if ahead else nullcontext():
            os.write(writer, b"1")
            while True:
                time.sleep(10)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    return tracer, tracee


def test_what_is_undone_ahead_is_before_a_tracee_runs(tmp_path: Path) -> None:
    """The step takes its time: a program that waits for us."""
    seen = tmp_path / "seen"
    os.mkfifo(tmp_path / "fifo")
    steps = [caretaker.run(os.open("/proc/self/ns/net", os.O_RDONLY), ["sh", "-c", f"read x <{tmp_path}/fifo"], b"")]
    tracer, tracee = _dumper(seen, steps, ahead=True)
    try:
        os.kill(tracer, signal.SIGKILL)
        with (tmp_path / "fifo").open("w") as fifo:  # opened by both: it is at work
            assert (os.waitpid(tracer, os.WNOHANG)[0], seen.read_bytes()) == (0, b"stopped")
            assert read_status(Pid(tracee)).tracer == tracer
            fifo.write("\n")
        os.waitpid(tracer, 0)
        _wait(lambda: seen.read_bytes() == b"runs")
    finally:
        os.kill(tracee, signal.SIGKILL)
        os.waitpid(tracee, 0)


def test_who_dies_before_it_hears_that_all_is_ready_is_heard_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def work(_: int) -> None:
            keeper = caretaker.Caretaker()
            keeper.add([_step(ours, 7)])
            keeper._tell(caretaker._AHEAD, [threading.get_native_id()])
            select.select([keeper._socket], [], [])

        _in_a_child(work)
        _wait(lambda: _value(ours) == 7)


def test_meanwhile_signals_come_and_go() -> None:
    heard: list[int] = []
    keeper = caretaker.Caretaker()
    ours, theirs = socket.socketpair()
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with ours, theirs:
            keys = keeper.add([_step(ours, 7)])
            for _ in range(3):
                with keeper.ahead():
                    assert read_status(Pid(os.getpid())).tracer
                    signal.raise_signal(signal.SIGUSR1)
                    assert subprocess.run(["true"], check=True).returncode == 0  # and a SIGCHLD
                    keeper.drop(keys)
                    keys = keeper.add([_step(ours, 9)])
                _wait(lambda: not read_status(Pid(os.getpid())).tracer)
            assert heard == [signal.SIGUSR1] * 3
            keeper.relieve()
            assert _value(ours) == 9
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_who_is_stopped_meanwhile_goes_on_when_told() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        keeper = caretaker.Caretaker()
        with keeper.ahead():
            os.kill(os.getpid(), signal.SIGSTOP)
        os.write(writer, b"1")
        keeper.dismiss()
        os._exit(3)
    os.close(writer)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(child, signal.SIGCONT)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_who_is_traced_by_another_gains_nothing_and_loses_nothing() -> None:
    child = os.fork()
    if not child:
        signal.pause()
    thread = Thread(Pid(child), Pid(child))
    thread.seize()
    try:
        with pytest.raises(PermissionError):
            Witness(Pid(child), 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
