"""A container of runc alone arrives from another host: runc here makes it of its bundle, up to our engine.

As of Podman's (:mod:`torpor.containers.arriving`).  The bundle is here already: nothing of its files comes.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from torpor.base.errors import MigrationError
from torpor.containers import bundles
from torpor.containers.arriving import Arriving, Waiting
from torpor.containers.importing import Bundle, Importer
from torpor.engine import jobs
from torpor.migrate import destination, meeting
from torpor.migrate.destination import Received
from torpor.migrate.link import Link, Message
from torpor.migrate.offer import Offer

#: What a restore may be told that the checkpoint was.
WORDS = ("tcp-established", "file-locks")
_UNPACKED = "unpacked"
_MAX_LINKS = 256


def take(link: Link, message: Message, offered: Offer, name: str) -> Received | None:
    """Take the container that *message* offers: see :func:`torpor.migrate.destination.receive`."""
    words = [(str(word), "") for word in message.entries("words", len(WORDS)) if word in WORDS]
    links = [str(each) for each in message.entries("links", _MAX_LINKS)]
    bundle = message.text("bundle")
    if not bundle.startswith("/") or "\0" in bundle or not name or name.startswith("-") or "/" in name:
        message.refuse("bundle, name")
    if problems := bundles.problems(bundle, name):
        destination.refuse(link, problems)
        return None
    with ExitStack() as stack:
        importer = stack.enter_context(Importer(jobs.state_directory() / _UNPACKED, link.close))
        incoming = destination.accept(link, message, stack)
        arrival = _BundleArriving(link, incoming, offered, name, words, importer, stack)
        arrival.bundle, arrival.links = Path(bundle), links
        return arrival.run()


class _BundleArriving(Arriving):
    """Of a container of runc."""

    bundle: Path
    links: list[str]

    def _documents(self, message: Message) -> None:
        place = self._importer.place / "checkpoint"
        place.mkdir(mode=0o700)
        for name, content in self._contents(self._once(message)).items():
            (place / name).write_bytes(content)

    def _have_it_made(self) -> Waiting:
        network = bundles.network_of(bundles.read(self.bundle))
        self._table = f"torpor-arrival-{self._token}"[:31] if network else ""
        images = str(self._importer.place / "checkpoint")
        order = Bundle(str(self.bundle), self._name, images, self._words, network, self.links, self._table)
        with meeting.Meeting(meeting.of_restore(self._token)) as place:
            self._importer.begin_bundle(order)
            return self._meet(place)[0]

    def _place_of(self, part: str) -> Path:
        raise MigrationError(f"there is no place here for {part}: the root file system of the bundle is here already")
