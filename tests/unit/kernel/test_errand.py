"""Children of ours that do not go on as if they were we."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from torpor.kernel import errand, features, interrupts
from torpor.objects.files import pidfd
from torpor.tracee.caretaker import Caretaker
from torpor.tracee.detached import spawn


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of our commands."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.catch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _feature() -> None:
    with features._traced_child():
        pass


def _dead() -> None:
    with pidfd._dying(0):
        pass


def _caretaker() -> None:
    Caretaker().dismiss()


@pytest.mark.parametrize("begin", [_feature, _dead, _caretaker, lambda: spawn(lambda: None)])
def test_a_signal_just_after_the_fork_does_not_have_the_child_go_on_as_we(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[], None]
) -> None:
    us, (reader, writer), fork = os.getpid(), os.pipe(), os.fork

    def hit() -> int:
        child = fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
        select.select([reader], [], [], 0.2)  # not ended by us before it would tell
        return child

    monkeypatch.setattr(os, "fork", hit)
    try:
        begin()
    finally:
        if os.getpid() != us:
            os.write(writer, b"!")
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_what_hears_is_ended_by_a_signal_that_we_handle() -> None:
    started, ready = os.pipe()
    with errand.deaf() as mask:
        child = os.fork()
        if not child:
            with suppress(BaseException):
                errand.hear(mask)
                os.write(ready, b"r")
                signal.pause()
            os._exit(1)
    assert os.read(started, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    os.close(started)
    os.close(ready)


def test_a_detached_process_hears_what_we_hear_and_has_no_handlers_of_ours() -> None:
    reader, writer = os.pipe()

    def say() -> None:
        mine = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.write(writer, repr((sorted(map(int, mine)), int(signal.getsignal(signal.SIGTERM)))).encode())  # type: ignore[arg-type]

    spawn(say, (writer,))
    os.close(writer)
    ours = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    with open(reader, "rb") as stream:
        assert stream.read().decode() == repr((ours, int(signal.SIG_DFL)))
