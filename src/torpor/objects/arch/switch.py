"""One switch of a thread or of its memory, as :mod:`torpor.objects.task.switches` has them in tables."""

from __future__ import annotations

from torpor.base.records import dataclass

#: Words that stand for the value that is set, and for where the kernel stores the one that is asked for.
VALUE, ROOM = "value", "room"


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch: the field it has in images, how it is read and set, and the value that it has by default.

    The words of a call are numbers, or ``VALUE`` or ``ROOM``.
    """

    field: str
    read: tuple[int | str, ...]
    set: tuple[int | str, ...]
    default: int
