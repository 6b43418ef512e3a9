"""What a dump changes outside of the tree, and who sees to it if we die: the network lock, sockets in repair mode.

Whatever happens, one of these follows: the tree lives on (left running, or the dump fails) and the changes are undone
(:mod:`torpor.objects.undo`); it is killed, and some stay on purpose (:class:`Lasting`); or we are killed, and a
:class:`Caretaker` does the first, after ``commit`` the second.  A tree that is left stopped may come to either, later:
the caretaker waits for what it will be.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.tracee.caretaker import Caretaker, Step


class Lasting:
    """A change that is undone while the tree may live, and about which something else is to be done when it is dead."""

    @property
    def keys(self) -> Sequence[int]:
        """What of it a caretaker knows, and undoes no longer when it has killed the tree."""
        return ()

    def last_steps(self) -> Sequence[Step]:
        """What a caretaker does then, in the place of ``settle``."""
        return ()

    def settle(self) -> None:
        """The tree has been killed: see to what is to stay, and let go the rest."""


class Outside:
    """What one dump has changed outside of the tree: the changes, and the caretaker that knows of them."""

    def __init__(self) -> None:
        #: Whether nothing was on its way when the tree was stopped: what has come since has come too late.
        self.was_at_rest = False
        #: How the network was locked, in the image's numbers; 2: not at all.
        self.lock_method = 2
        #: What names this dump in places that others see: random, and short enough for CRIU's names of tables.
        self.run_id = os.urandom(10).hex()
        self._caretaker: Caretaker | None = None
        self._lasting: list[Lasting] = []

    @property
    def caretaker(self) -> Caretaker:
        """Who undoes it if we die; made when first asked for (a fork, some 0.3 ms)."""
        if self._caretaker is None:
            from torpor.tracee import caretaker

            self._caretaker = caretaker.Caretaker()
        return self._caretaker

    def add(self, change: Lasting) -> None:
        """Take note of it."""
        self._lasting.append(change)

    def commit(self, ends: Sequence[Step]) -> None:
        """From here on our death does not bring the tree back to life: a caretaker does *ends*, and what follows."""
        steps = [*ends]
        for each in self._lasting:
            steps += each.last_steps()
        self.caretaker.add(steps, instead_of=[key for each in self._lasting for key in each.keys])

    def killed(self) -> None:
        """The tree has been killed.  What fails now does not make the images any worse, and is a warning."""
        while self._lasting:
            try:
                self._lasting.pop(0).settle()
            except (TorporError, OSError) as error:
                log.warn(f"the checkpoint is complete, but afterwards: {error}")

    def wait_for_fate(self, processes: Sequence[tuple[int, int]]) -> None:
        """The tree (pids and pidfds, the root first) is stopped: a caretaker does what its end, or going on, asks for.

        What was changed stays until then.
        """
        steps = [step for each in self._lasting for step in each.last_steps()]
        if steps or any(each.keys for each in self._lasting):
            self.caretaker.stay(processes, steps)

    def close(self) -> None:
        """Nothing is left to be undone."""
        if self._caretaker is not None:
            self._caretaker.dismiss()
            self._caretaker = None
