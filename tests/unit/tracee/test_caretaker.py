"""The caretaker undoes what it was told when its maker is killed, and nothing when it is dismissed."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from torpor.tracee import caretaker

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
    deadline = time.monotonic() + 10
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
        theirs.settimeout(10)
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
