"""What the engine's path needs of :mod:`contextlib`, without the modules which that imports: 4 ms."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from types import TracebackType

from torpor.base.typed import Any, Self

__all__ = ["AbstractContextManager", "ExitStack", "contextmanager", "nullcontext", "suppress"]

_Kind = type[BaseException] | None


class AbstractContextManager:
    """A base that annotations name."""

    def __class_getitem__(cls, kinds: object) -> type:
        return cls

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return None


class nullcontext(AbstractContextManager):
    """Nothing, with a value."""

    def __init__(self, enter_result: Any = None) -> None:
        self._result = enter_result

    def __enter__(self) -> Any:
        return self._result


class suppress(AbstractContextManager):
    """Ends at these errors, without an error."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self._errors = errors

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: TracebackType | None) -> bool:
        return kind is not None and issubclass(kind, self._errors)


def contextmanager(function: Callable[..., Any]) -> Callable[..., Any]:
    """A context manager of a generator function that yields once."""

    def make(*words: Any, **named: Any) -> _OfGenerator:
        return _OfGenerator(function(*words, **named))

    make.__name__, make.__qualname__, make.__module__ = function.__name__, function.__qualname__, function.__module__
    return make


class _OfGenerator(AbstractContextManager):
    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[Any, None, None]) -> None:
        self._generator = generator

    def __enter__(self) -> Any:
        try:
            return next(self._generator)
        except StopIteration:
            raise RuntimeError("generator didn't yield") from None

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: TracebackType | None) -> bool:
        if kind is None:
            if next(self._generator, self) is self:
                return False
            raise RuntimeError("generator didn't stop")
        raised = error if error is not None else kind()
        try:
            self._generator.throw(raised)
        except StopIteration as end:
            return end is not raised
        except BaseException as other:
            # A generator's StopIteration comes out as the cause of a RuntimeError (PEP 479).
            is_same = other is raised or (
                isinstance(other, RuntimeError) and isinstance(raised, StopIteration) and other.__cause__ is raised
            )
            if not is_same:
                raise
            raised.__traceback__ = trace
            return False
        raise RuntimeError("generator didn't stop after throw()")


class ExitStack(AbstractContextManager):
    """Context managers and functions that are ended in the order opposite to that in which they were begun."""

    def __init__(self) -> None:
        self._ends: list[Callable[[_Kind, BaseException | None, TracebackType | None], bool | None]] = []

    def enter_context(self, manager: Any) -> Any:
        """Enter *manager*, which is left at the end; what it gives."""
        kind = type(manager)
        enter, leave = kind.__enter__, kind.__exit__
        found = enter(manager)
        self._ends.append(lambda *how: leave(manager, *how))
        return found

    def callback(self, function: Callable[..., Any], /, *words: Any, **named: Any) -> Callable[..., Any]:
        """Call *function* at the end."""

        def call(*how: object) -> None:
            function(*words, **named)

        self._ends.append(call)
        return function

    def pop_all(self) -> Self:
        """Another stack, which has all that is here."""
        other = type(self)()
        self._ends, other._ends = [], self._ends
        return other

    def close(self) -> None:
        """End all that has been entered, the last first, as if no error had occurred."""
        self.__exit__(None, None, None)

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: TracebackType | None) -> bool:
        around, was_raised, is_new = sys.exc_info()[1], kind is not None, False
        while self._ends:
            try:
                if self._ends.pop()(kind, error, trace):
                    kind, error, trace, is_new = None, None, None, False
            except BaseException as other:
                _chain(other, error, around)
                kind, error, trace, is_new = type(other), other, other.__traceback__, True
        if is_new:
            assert error is not None
            context = error.__context__
            try:
                raise error
            except BaseException:
                # ``raise`` has set another context.
                error.__context__ = context
                raise
        return was_raised and kind is None


def _chain(new: BaseException, old: BaseException | None, around: BaseException | None) -> None:
    """Have *new* be raised while *old* was handled, where the interpreter says it was while *around* was."""
    while new.__context__ is not old:
        if new.__context__ is None or new.__context__ is around:
            new.__context__ = old
            return
        new = new.__context__
