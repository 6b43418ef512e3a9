"""Random instants at which some work is interrupted, however long it takes on this machine at this moment."""

import os
import random
import select
from types import TracebackType
from typing import Self

from harness.events import time_limit_s

#: About two in five works come to their end if each that did shortens the window and each that did not widens it.
_SHORTEN, _WIDEN = 0.9, 1.08


class Instants:
    """Instants between the beginning of a work and a little after its end, by how long the earlier ones took.

    *whole_s*: what the first guess is made of, best a measured one.  The seed decides about the random numbers, the
    machine about what they are multiplied with.
    """

    def __init__(self, seed: int, whole_s: float) -> None:
        self._random = random.Random(seed)
        self.longest_s = 1.1 * whole_s

    def draw(self) -> float:
        """How long to wait, in seconds, before the next one is interrupted."""
        return self._random.uniform(0, self.longest_s)

    def learn(self, *, finished: bool) -> None:
        """Whether the one that was interrupted last had come to its end."""
        self.longest_s *= _SHORTEN if finished else _WIDEN


class Told:
    """How often a child that is going to be killed has come to the end of its work: it says so in a pipe."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def say(self) -> None:
        """For the child."""
        os.write(self._writer, b"!")

    def wait(self) -> None:
        """Until it has been said once."""
        assert select.select([self._reader], [], [], time_limit_s(60))[0]

    def take(self) -> int:
        """How often it has been said since this was asked last."""
        try:
            return len(os.read(self._reader, 1 << 16))
        except BlockingIOError:
            return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._reader)
        os.close(self._writer)
