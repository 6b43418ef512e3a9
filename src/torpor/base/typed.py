"""What the engine's path needs of :mod:`typing` at run time, for nothing: the module itself costs 6 ms to import.

Type checkers see the standard ones.  At run time a Protocol or IntEnum is a plain class, a NewType its base, a cast its
value.
"""

from __future__ import annotations

__all__ = [
    "TYPE_CHECKING",
    "Any",
    "BinaryIO",
    "Generic",
    "IntEnum",
    "Literal",
    "NewType",
    "NoReturn",
    "Protocol",
    "Self",
    "TypeVar",
    "cast",
    "overload",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import IntEnum
    from typing import Any, BinaryIO, Generic, Literal, NewType, NoReturn, Protocol, Self, TypeVar, cast, overload
else:
    #: Members are plain numbers.
    IntEnum = object

    class Generic:
        """A base that may be subscripted."""

        __slots__ = ()

        def __class_getitem__(cls, kinds: object) -> type:
            return cls

    class Protocol(Generic):
        """The same."""

        __slots__ = ()

    class _Word:
        """A word of annotations, which nobody looks at while running."""

        def __getitem__(self, kinds: object) -> object:
            return self

    Any = BinaryIO = Literal = NoReturn = Self = _Word()

    def TypeVar(name: str, *bounds: object, **more: object) -> object:
        """A type variable is nothing while running."""
        return object

    def NewType(name: str, base: type) -> type:
        """The base itself."""
        return base

    def cast(kind: object, value: object) -> object:
        """The value."""
        return value

    def overload(function: object) -> object:
        """Nothing; the last definition wins."""
        return function
