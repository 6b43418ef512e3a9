"""The engine's side of a restore that a migration brings: it waits until the images have come, and until it may go on.

Its network namespace is held back as a whole from before anything was in it (:mod:`torpor.migrate.held_network`), and
is let go here, last of all, with its neighbours told where its addresses are now.
"""

from __future__ import annotations

import os
import threading

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import Closing
from torpor.engine.options import Notify
from torpor.engine.restore.ahead import Ahead
from torpor.images import kinds
from torpor.images.store import ImageStore, load_all
from torpor.migrate import held_network, meeting
from torpor.migrate.link import Link
from torpor.migrate.spent import give_back


class Arrival(Closing):
    """What comes by *link*, to a file system at *root* with *external* mounts.

    *network*: a descriptor of the network namespace that it is put into; -1: none of its own.  *sibling*: it becomes a
    child of our parent.  ``ahead`` has what of its memory is there already.
    """

    def __init__(self, link: Link, root: str, external: tuple[str, ...], network: int, *, sibling: bool) -> None:
        self._link, self._network, self._sibling = link, network, sibling
        self._rounds: list[ImageStore] = []
        self.ahead: Ahead | None = None
        self._opening: threading.Thread | None = None
        link.send(meeting.RESTORE, root=root, external=list(external), network=network, pid=os.getpid())

    def images(self) -> ImageStore:
        """All of it, when it has come; FailedThereError, LinkLostError where it does not."""
        images = meeting.take_images(self._link, self._lay_out)
        # The last ones are closed by whoever reads them.
        if len(load_all(images, kinds.PSTREE)) == 1:
            # Of several, one may be looked at again for what it shares with another.
            images.read_once(give_back)
        return images

    def _lay_out(self, images: ImageStore, root: int) -> None:
        """Memory of a round is put where the restore takes it from."""
        self._rounds.append(images)
        if self.ahead is None:
            self.ahead = Ahead(root, sibling=self._sibling)
        self.ahead.take(images)

    def notifier(self, then: Notify) -> Notify:
        """Waits for the word between the last that can be said against it and the first that goes on."""

        def notify(action: str, pid: int) -> None:
            then(action, pid)
            if action == "post-restore":
                self._link.send(meeting.READY)
                table = self._link.expect(meeting.GO).text("table", "")
                if self._network >= 0 and table:
                    self._opening = threading.Thread(target=self._let_in, args=(table,))
                    self._opening.start()

        return notify

    def _let_in(self, table: str) -> None:
        """While the last is done to it: connections are held back by themselves until they are there."""
        try:
            held_network.let_go(self._network, table)
        except (TorporError, OSError) as error:
            log.error(f"what comes for it over the network is still held back: {error}")

    def runs(self, pid: int) -> None:
        """Tell whoever has sent the images that all run, *pid* first; that it cannot be told is a warning."""
        if self._opening is not None:
            self._opening.join()
        try:
            self._link.send(meeting.DONE, pid=pid)
        except TorporError as error:
            log.warn(f"pid {pid} runs; that cannot be told any more: {error}")

    def close(self) -> None:
        if self.ahead is not None:
            self.ahead.close()
        for images in self._rounds:
            images.close()
        self._link.close()
