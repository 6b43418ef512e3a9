"""An enum of the schema: its constants as attributes, and the way between names and numbers.

It stands in for protobuf's own EnumTypeWrapper, whose module takes 1 ms to import.
"""

from __future__ import annotations

from torpor.base.typed import Any


class Enum:
    """Made from the descriptor that a pool has."""

    def __init__(self, descriptor: Any) -> None:
        self.DESCRIPTOR = descriptor
        self._numbers = {value.name: value.number for value in descriptor.values}
        self._names = {number: name for name, number in reversed(self._numbers.items())}
        self.__dict__.update(self._numbers)

    def Name(self, number: int) -> str:
        """The first name of *number*; ValueError without one."""
        try:
            return str(self._names[number])
        except KeyError:
            raise ValueError(f"enum {self.DESCRIPTOR.name} has no name for {number!r}") from None

    def Value(self, name: str) -> int:
        """The number of *name*; ValueError without one."""
        try:
            return int(self._numbers[name])
        except KeyError:
            raise ValueError(f"enum {self.DESCRIPTOR.name} has no value {name!r}") from None

    def keys(self) -> list[str]:
        return list(self._numbers)

    def values(self) -> list[int]:
        return list(self._numbers.values())

    def items(self) -> list[tuple[str, int]]:
        return list(self._numbers.items())
