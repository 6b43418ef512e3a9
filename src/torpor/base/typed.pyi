# What base/typed really has, for type checkers: the members of an IntEnum are numbers, and nothing else of it is there.
from enum import EnumMeta
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Generic,
    Literal,
    NewType,
    NoReturn,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

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

class _Plain(EnumMeta):
    __iter__: None  # type: ignore[assignment]
    __len__: None  # type: ignore[assignment]
    __getitem__: None  # type: ignore[assignment]
    __contains__: None  # type: ignore[assignment]

class IntEnum(int, metaclass=_Plain):  # type: ignore[misc]
    def __new__(cls) -> Self: ...
