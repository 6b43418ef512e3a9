"""When a signal that asks us to end raises."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from torpor.kernel import interrupts


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.catch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_at_once() -> None:
    with pytest.raises(interrupts.Interrupted) as stop:
        ask()
    assert stop.value.number == signal.SIGTERM


def test_put_off_until_the_end() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        ask()
        seen.append("all of it")
    assert seen == ["all of it"]


def test_put_off_until_the_outermost_end() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        with interrupts.put_off():
            ask()
        seen.append("the rest")
    assert seen == ["the rest"]


def test_asked_between_two_steps() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        interrupts.look()
        ask()
        seen.append("a step")
        interrupts.look()
        seen.append("another")
    assert seen == ["a step"]


@pytest.mark.parametrize("when", ["before", "within"])
def test_allowed(when: str) -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        if when == "before":
            ask()
        with interrupts.allowed():
            if when == "within":
                ask()
            seen.append("never")
    assert not seen


def test_put_off_again_after_it_was_allowed() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        with interrupts.allowed(), interrupts.put_off():
            seen.append("whole")
        ask()
        seen.append("to the end")
    assert seen == ["whole", "to the end"]


def test_put_off_within_what_is_allowed_raises_at_its_end() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off(), interrupts.allowed():
        with interrupts.put_off():
            ask()
            seen.append("whole")
        seen.append("never")
    assert seen == ["whole"]


def test_the_way_back_is_not_broken_off() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted) as stop, interrupts.put_off():
        try:
            with interrupts.allowed():
                ask()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("back")
    assert seen == ["back"]
    assert stop.value.number == signal.SIGTERM


def test_an_error_goes_first() -> None:
    seen = []
    with pytest.raises(ValueError, match="mine"), interrupts.put_off():
        ask()
        raise ValueError("mine")
    with interrupts.put_off():
        seen.append("the way back")
    with interrupts.put_off(), interrupts.allowed():
        seen.append("whoever is waited for on it")
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        interrupts.look()
        seen.append("something else")
    with interrupts.put_off():
        interrupts.look()  # nothing is left of it
    assert seen == ["the way back", "whoever is waited for on it"]


def test_what_comes_after_a_signal_is_not_heard_once_more() -> None:
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        try:
            with interrupts.allowed():
                ask()
        finally:
            ask()
    interrupts.look()


def test_a_child_is_not_in_the_midst_of_it() -> None:
    """It hears the first signal, not the third, and leaves alone what its parent has put off."""
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        child = os.fork()
        if not child:
            code = 1
            try:
                ask()
            except interrupts.Interrupted:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ask()


def test_a_child_that_goes_on_as_its_parent_leaves_the_block() -> None:
    with interrupts.put_off():
        child = os.fork()
    if not child:
        code = 1
        try:
            with interrupts.put_off():
                ask()
        except interrupts.Interrupted:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_third_one_raises_at_once() -> None:
    seen = []
    with pytest.raises(interrupts.Interrupted), interrupts.put_off():
        ask()
        ask()
        seen.append("put off")
        ask()
        seen.append("never")
    assert seen == ["put off"]
    with pytest.raises(interrupts.Interrupted):
        ask()


def test_past_the_point_of_no_return_it_is_too_late() -> None:
    """Also for what had come before, and was put off."""
    with interrupts.put_off():
        ask()
        with interrupts.held():
            interrupts.look()
            ask()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_program_in_python_gets_what_it_expects() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []
    with pytest.raises(KeyboardInterrupt), interrupts.as_python_has_them(), interrupts.put_off():
        os.kill(os.getpid(), signal.SIGINT)
        seen.append("all of it")
    assert seen == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_program_in_python_hears_it_where_the_work_has_failed() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as stop, interrupts.as_python_has_them(), interrupts.put_off():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("mine")
    assert isinstance(stop.value.__cause__, ValueError)
    interrupts.look()


def test_a_program_with_a_handler_of_its_own_keeps_it() -> None:
    came = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    with interrupts.as_python_has_them(), interrupts.put_off():
        os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT]


def test_other_threads_put_nothing_off() -> None:
    is_in, is_over = threading.Event(), threading.Event()

    def work() -> None:
        with interrupts.put_off():
            is_in.set()
            is_over.wait()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        is_in.wait()
        with pytest.raises(interrupts.Interrupted):
            ask()
    finally:
        is_over.set()
        worker.join()
