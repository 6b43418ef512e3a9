"""A command of a container's engine that has our engine asked to dump, while we wait to be asked.

Podman, say, is told to checkpoint a container; its runtime starts ``criu swrk``, which asks whoever moves the container
(:mod:`torpor.migrate.meeting`).  Nobody may be left alone there: an engine that is under way finds us until its command
has ended, were it to hear that nothing is to be dumped after all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import EngineError, TorporError
from torpor.base.worker import Worker
from torpor.kernel import interrupts
from torpor.migrate.link import FAILED, Link, Message
from torpor.migrate.meeting import DONE, DUMP, Meeting

_ASKS_WITHIN_S = 120.0
_LOOK_EVERY_S = 0.2


class Asking:
    """*command*, of *engine*, as long as a ``with`` lasts: until it has ended.  Who is asked for waits at *place*.

    An error in the block is what whoever has asked, or asks afterwards, is told, and the command fails then.  Without
    one, that of the command is raised.
    """

    def __init__(self, command: Callable[[], object], engine: str, place: Meeting) -> None:
        self._command, self._engine, self._place = command, engine, place
        self._error: BaseException | None = None
        self._asking: Link | None = None
        self._worker = Worker(self._run)
        #: It has done what it was for, whatever it says of it.
        self.has_ended_well = False

    def asked(self) -> Link:
        """Begin, and wait for the engine that asks, on a link that stays ours.

        The command's error; EngineError if it ends without having asked, MigrationError if it takes too long.
        """
        # A link that nobody has noted would never be closed, and whoever is at its other end waits.
        with interrupts.put_off():
            self._worker.begin()
            self._asking = self._place.wait(_ASKS_WITHIN_S, self._check)
        return self._asking

    def order(self) -> Message:
        """Begin, and have nothing done for the engine that asks: what it is told.  As ``asked``."""
        asking = self.asked()
        message = asking.expect(DUMP)
        asking.send(DONE)
        return message

    def _run(self) -> None:
        try:
            self._command()
        except BaseException as error:
            self._error = error

    def _check(self) -> None:
        interrupts.look()
        if self._worker.has_ended:
            raise self._error or EngineError(f"{self._engine} has not had our engine asked for anything")

    def _answer(self, why: str) -> None:
        """The last word to whoever has asked: *why* not, if there is a reason."""
        asking, self._asking = self._asking, None
        if asking is None:
            return
        if why:
            with suppress(TorporError):
                asking.send(FAILED, text=why)
        asking.close()

    def _turn_away(self, why: str) -> None:
        """Whoever asks from now on, until the command has ended."""
        while not self._worker.wait(_LOOK_EVERY_S):
            while (asking := self._place.accept_if_any()) is not None:
                self._asking = asking
                self._answer(why)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._worker.has_begun:
            return
        if error is not None:
            # A second Ctrl-C would leave the engine to dump by itself, and the container would end here.
            with interrupts.put_off():
                why = (isinstance(error, Exception) and str(error)) or "it was broken off"
                self._answer(why)
                self._turn_away(why)
            return
        self._answer("")
        self._worker.wait()
        if self._error is not None:
            if not self.has_ended_well:
                raise self._error
            log.warn(f"it has been moved, but {self._engine} says: {self._error}")
