"""Containers that move as one, those of a pod: who waits for whom, on the source.

Each is moved by a process of its own, which says how far it has come (``reach``) and waits until all have: so all are
stopped before any asks whether it can be rebuilt, and all can be before any is given up.  Whoever has them moved
(:mod:`torpor.containers.moving_pod`) alone decides, and has no second thoughts: a member that has said READY waits for
the word, and hears no signal any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from torpor.base.errors import MigrationError
from torpor.migrate.link import Link, LinkLostError

#: How far each comes: the destination has agreed; it waits there; Podman's runtime asks for the dump here; it is
#: stopped, with all of its images sent; its files lie there, which others may have open; it is rebuilt there.
AGREED, WAITING, ASKED, STOPPED, FILED, READY = STAGES = ("agreed", "waiting", "asked", "stopped", "filed", "ready")
#: Words of a member, and to it.
REACHED, NOT_THERE, ENDED = "reached", "not-there", "ended"
#: Why it is not known to run there, once it has been given up: nobody says so any more; it does not; none of all does.
LOST, FAILED, NONE = "lost", "failed", "none"
ON, CANCEL, WAKE, LEAVE = "on", "cancel", "wake", "leave"


class Together:
    """A member's end.  *token*: what the destination knows its pod by; *infra*: whose namespaces it has.

    *sharers*: the first processes of all whose /dev/shm it carries, if that is this one's to do.
    """

    def __init__(self, link: Link, token: str, infra: str, sharers: Sequence[int] = ()) -> None:
        self._link, self.token, self.infra, self.sharers = link, token, infra, sharers

    def reach(self, stage: str) -> None:
        """Wait until all have come so far; MigrationError where one of them does not."""
        try:
            self._link.send(REACHED, stage=stage)
            message = self._link.expect(ON, CANCEL)
        except LinkLostError:
            raise MigrationError("who has the pod moved has ended") from None
        if message.name == CANCEL:
            raise MigrationError(message.text("text", "the pod is not moved"))

    def is_to_wake(self, why: str) -> bool:
        """It is not known to run there, *why* is one of these: whether none of all does, and all run on here then."""
        try:
            self._link.send(NOT_THERE, why=why)
            return self._link.expect(WAKE, LEAVE).name == WAKE
        except LinkLostError:
            return why != LOST
