"""What a dump changes outside of the tree, and what becomes of that: the network lock, sockets in repair mode.

Whatever happens, one of these follows: the tree lives on (left running, or the dump fails) and the changes are undone;
it is killed, and some stay on purpose; or we are killed, and a :class:`Caretaker` does the first, after ``commit`` the
second.  A tree that is left stopped may come to either, later: the caretaker waits for what it will be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.late import load
from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.tracee.caretaker import Caretaker, Step


class Outside:
    """Of one dump."""

    def __init__(self) -> None:
        #: What checks before the freeze saw that needs preparation ("connections").
        self.noticed: set[str] = set()
        #: Each tells whether something is on its way through the kernel that only the tree itself can take up.
        self.restless: list[Callable[[], bool]] = []
        #: What the checks saw that will not be there any more after a restore.
        self.losses: list[str] = []
        #: Whether nothing was when the tree was stopped: what has come since has come too late.
        self.was_at_rest = False
        #: How the network was locked, in the image's numbers; 2: not at all.
        self.lock_method = 2
        #: What names this dump in places that others see: random, and short enough for CRIU's names of tables.
        self.run_id = os.urandom(10).hex()
        self._caretaker: Caretaker | None = None
        self._survivals: list[Callable[[], None]] = []
        self._at_close: list[Callable[[], None]] = []
        self._after_kill: list[Callable[[], None]] = []
        self._at_commit: list[Callable[[], tuple[Sequence[Step], Sequence[int]]]] = []

    def is_restless(self) -> bool:
        """Whether stopping the tree now would catch something on its way."""
        return any(tell() for tell in self.restless)

    @property
    def caretaker(self) -> Caretaker:
        """Who undoes it if we die; made when first asked for (a fork, some 0.3 ms)."""
        if self._caretaker is None:
            self._caretaker = load("torpor.tracee.caretaker").Caretaker()
        return self._caretaker

    def on_survival(self, action: Callable[[], None]) -> None:
        """Do *action* when the dump has failed or is done, just before the tree goes on or is left stopped."""
        self._survivals.append(action)

    def at_close(self, action: Callable[[], None]) -> None:
        """Do *action*, which takes its time, when the tree goes on already."""
        self._at_close.append(action)

    def at_commit(self, tell: Callable[[], tuple[Sequence[Step], Sequence[int]]]) -> None:
        """*tell* gives what a caretaker does when it has killed the tree, and the keys of what it no longer undoes."""
        self._at_commit.append(tell)

    def commit(self, ends: Sequence[Step]) -> None:
        """From here on our death does not bring the tree back to life: a caretaker does *ends*, and what follows."""
        steps = [*ends]
        no_more: list[int] = []
        for tell in self._at_commit:
            more, keys = tell()
            steps += more
            no_more += keys
        self.caretaker.add(steps, instead_of=no_more)

    def wait_for_fate(self, processes: Sequence[tuple[int, int]]) -> None:
        """The tree (pids and pidfds, the root first) is stopped: a caretaker does what its end, or going on, asks for.

        What was changed stays until then.
        """
        self._survivals.clear()
        told = [tell() for tell in self._at_commit]
        if any(steps or keys for steps, keys in told):
            self.caretaker.stay(processes, [step for steps, _ in told for step in steps])

    def after_kill(self, action: Callable[[], None]) -> None:
        """Do *action* when the tree has been killed."""
        self._after_kill.append(action)

    def survive(self) -> None:
        """The tree lives on: undo, the newest first."""
        while self._survivals:
            self._survivals.pop()()

    def fail(self) -> None:
        """The same after an error, which is the one to be told."""
        while self._survivals:
            with suppress(TorporError, OSError):
                self._survivals.pop()()

    def killed(self) -> None:
        """The tree has been killed.  What fails now does not make the images any worse, and is a warning."""
        self._survivals.clear()
        while self._after_kill:
            try:
                self._after_kill.pop(0)()
            except (TorporError, OSError) as error:
                log.warn(f"the checkpoint is complete, but afterwards: {error}")

    def close(self) -> None:
        """Nothing is left to be undone."""
        while self._at_close:
            self._at_close.pop()()
        if self._caretaker is not None:
            self._caretaker.dismiss()
            self._caretaker = None
