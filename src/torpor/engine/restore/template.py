"""A process that never runs and holds the memory of a checkpoint, from which the roots of its copies are cloned.

It is made for the first copy, which so costs what any restore costs; every further one has the same pages, until it
writes to them.  It is traced by us and dies with us.  See :mod:`torpor.objects.memory.template`.
"""

from __future__ import annotations

from torpor.base import log
from torpor.base.errors import RestoreError, TargetGoneError
from torpor.base.fds import Closing
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.engine.restore.session import RestoreSession
from torpor.images.store import identity_of
from torpor.objects.memory import template
from torpor.objects.memory.template import Parking
from torpor.tracee import stub
from torpor.tracee.puppet import Channel
from torpor.tracee.stub import Stub


@dataclass(frozen=True, slots=True)
class _Made:
    stub: Stub
    parking: Parking
    channel: Channel
    #: What tells these images from others.
    identity: bytes


class Template(Closing):
    """For several restores of the same images, one after the other, by this process.  ``close`` ends it."""

    def __init__(self) -> None:
        self._made: _Made | None = None

    @property
    def pid(self) -> Pid | None:
        """Its own, once there is one."""
        return None if self._made is None else self._made.stub.thread.tgid

    @property
    def channel(self) -> Channel | None:
        """The one that puppets cloned from it have."""
        return None if self._made is None else self._made.channel

    def bearer(self, session: RestoreSession) -> Stub | None:
        """What the root puppet is to be cloned from, with all parked memory; None where that cannot be, and memory is
        written as ever.  RestoreError where the images are others than those that it was made of.
        """
        if session.joined:
            log.warn("a tree that joins namespaces shares no memory with its copies")
            return None
        if self._made is None:
            self._made = self._make(session)
        made = self._made
        if made is None:
            return None
        if made.identity != identity_of(session.store) or made.stub.area != session.area:
            raise RestoreError("there are other images by now than those that the copies before were made of")
        try:
            made.stub.runner.thread.get_regs()
        except (OSError, TargetGoneError) as error:
            raise RestoreError("the template that holds the memory of the copies has been killed") from error
        session.context.parking = made.parking
        return made.stub

    def _make(self, session: RestoreSession) -> _Made | None:
        area, channel = session.area, session.channel
        parking = template.plan(session.alive, [(area, area + stub.AREA_SIZE)])
        if parking is None:
            return None
        made = stub.spawn(area, keep_fds={channel.far_number: channel.far.fileno()})
        try:
            session.stats.pages_restored += template.fill(parking, session.alive, session.store, made.runner)
            return _Made(made, parking, channel.again(), identity_of(session.store))
        except BaseException:
            made.end()
            raise

    def close(self) -> None:
        if self._made is not None:
            made, self._made = self._made, None
            made.stub.end()
            made.channel.close()
