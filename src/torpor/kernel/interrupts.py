"""Signals that ask us to end: as an exception where work can be taken back, held back where it must come to its end.

``catch`` is for commands: Ctrl-C and SIGTERM raise, so that everything borrowed is given back on the way up.  ``held``
is for whoever passes a point of no return: from there to the end of the block no signal changes our way.  ``put_off``
is for what must not be broken off in its midst, because who takes it back has to know how far it has come: the state of
a task that works for us.  It is heard between its steps (``look``) and while it waits (``allowed``).  What comes while
that fails by itself, and is taken back, is heard when the next such work begins.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from torpor.base import log
from torpor.base.typed import NoReturn
from torpor.kernel import signal

#: What cannot be held back (SIGKILL, SIGSTOP), ends nobody by itself, or says that the program itself is at fault.
_NOT_HELD = frozenset(
    (
        signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSEGV,
        signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT,
        32, 33,  # the C library's own
    )
)  # fmt: skip
_SIGRTMAX = 64
#: Whoever asks so often gets it at once: what is put off may wait for something that never comes.
_AT_ONCE = 3


class Interrupted(BaseException):
    """A signal asks us to stop.  Not an Exception: nobody in between handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def behind(error: BaseException) -> Interrupted | None:
    """What asked us to stop, where *error* was met on the way up: a thread that still works for us cannot be asked."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Interrupted):
        seen = seen.__context__
    return seen


class _State:
    """Of the main thread, the one in which handlers run."""

    __slots__ = ("asked", "is_open", "late", "levels", "main")

    def __init__(self) -> None:
        #: The thread that has called ``catch``.
        self.main = 0
        #: How many blocks of ``put_off`` we are in, and whether it is allowed to break them off all the same.
        self.levels, self.is_open = 0, True
        #: What has come meanwhile, and what an error went before.
        self.asked: list[int] = []
        self.late: list[int] = []


_state = _State()


def _begin_anew() -> None:
    """In a child: what its parent is in the midst of is not its own, and it is asked to end for itself."""
    global _state
    before, _state = _state, _State()
    _state.main = get_ident() if before.main else 0


os.register_at_fork(after_in_child=_begin_anew)


def catch() -> None:
    """From now on the two signals raise."""
    _state.main = get_ident()
    _state.late.clear()
    signal.signal(signal.SIGINT, _raise)
    signal.signal(signal.SIGTERM, _raise)


@contextmanager
def as_python_has_them() -> Iterator[None]:
    """For a block that a program in Python calls, which has not called ``catch``: a Ctrl-C there raises likewise.

    It is a KeyboardInterrupt at the end of the block, also where that has failed by itself.  Whatever else the program
    has made of signals stays as it is.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _raise)
    except ValueError:  # not in the main thread
        yield
        return
    before, _state.main = _state.main, get_ident()
    try:
        yield
    except Interrupted as stop:
        raise KeyboardInterrupt from stop
    except Exception as error:
        if _state.late:
            raise KeyboardInterrupt from error
        raise
    finally:
        _state.late.clear()
        _state.main = before
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise(number: int, frame: FrameType | None) -> None:
    state = _state
    if state.levels and not state.is_open and len(state.asked) + 1 < _AT_ONCE:
        state.asked.append(number)
        return
    _stop(number)


def _stop(number: int) -> NoReturn:
    # What is on the way up from here is as delicate, wherever that was.
    _state.is_open = False
    _state.asked.clear()
    _state.late.clear()
    raise Interrupted(number)


def look() -> None:
    """Between two steps of what is put off: Interrupted where a signal has come, or came while earlier work failed."""
    if (_state.asked or _state.late) and get_ident() == _state.main:
        _stop((_state.late + _state.asked)[0])


def _look_back() -> None:
    """The same of what has come since: on the way up from an error nothing is broken off for what it went before."""
    if _state.asked and get_ident() == _state.main:
        _stop(_state.asked[0])


class put_off:
    """Within the block the signals of ``catch`` wait; what has come raises at its end.

    Where an error does, the next ``look`` tells of it.  The third one raises at once.  Elsewhere than in the thread
    that has called ``catch`` nothing is done: none of them is met there.
    """

    __slots__ = ("_state", "_was_open")

    def __init__(self) -> None:
        self._state, self._was_open = _state if get_ident() == _state.main else None, True

    def __enter__(self) -> None:
        if self._state is not None:
            self._was_open = self._state.is_open
            self._state.levels += 1
            self._state.is_open = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        state = self._state
        if state is None:
            return
        state.levels -= 1
        state.is_open = self._was_open or not state.levels
        if state.is_open and state is _state:
            if kind is None:
                _look_back()
            elif not issubclass(kind, Interrupted):
                state.late += state.asked
            state.asked.clear()


class allowed:
    """Within the block, which is inside of one that is ``put_off``, signals raise wherever they come, or have come."""

    __slots__ = ()

    def __enter__(self) -> None:
        _look_back()
        if get_ident() == _state.main:
            _state.is_open = True
            _look_back()

    def __exit__(self, *_: object) -> None:
        if get_ident() == _state.main and _state.levels:
            _state.is_open = False


@contextmanager
def held() -> Iterator[None]:
    """Within the block signals are taken note of only, and sent to us again afterwards.

    Those that ``catch`` has caught stay without effect once the block has succeeded: a command that has done what it
    was asked for ends by itself, and with 0.  Not by a mask: any thread of ours may be the one that a signal is given
    to.  Elsewhere than in the main thread nothing is done, since handlers of Python's run in that one alone.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before: dict[int, object] = {}
    succeeded = False
    try:
        for number in range(1, _SIGRTMAX + 1):
            if number not in _NOT_HELD and signal.getsignal(number) not in (signal.SIG_IGN, None):
                try:
                    before[number] = signal.signal(number, note)
                except ValueError:
                    break
        else:
            came += _state.asked
            _state.asked.clear()
        yield
        succeeded = True
    finally:
        for number, handler in before.items():
            if not (succeeded and handler is _raise):
                signal.signal(number, handler)  # type: ignore[arg-type]
        for number in came:
            if before[number] is _raise:
                log.warn(f"signal {number} came when there was no way back any more")
            else:
                os.kill(os.getpid(), number)


@contextmanager
def told(action: Callable[[int], None]) -> Iterator[None]:
    """Within the block *action* is called with the number of each signal that asks us to end, and nothing else happens.

    Also where they are ``held``, of which nobody hears of these then.  Elsewhere than in the main thread nothing is
    done.
    """

    def tell(number: int, frame: FrameType | None) -> None:
        action(number)

    before: dict[int, object] = {}
    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            try:
                before[which] = signal.signal(which, tell)
            except ValueError:
                break
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
