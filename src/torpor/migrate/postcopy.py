"""Memory that goes when the tree runs at the destination already: whoever waits for a page gets it, the rest follows.

It has a connection of its own, in TLS with certificates made for it alone, and CRIU's page server's words on it.  The
destination listens until it has all, and the source comes again when the connection has broken: whoever waits for a
page waits on meanwhile.  The source keeps the tree, stopped, until it is told that nothing is missing any more; its
death is the end of what has not gone, and of the processes that touch that.  Where nobody comes for the rest any more
it completes its own images with that before it ends the tree: nothing is lost, whoever runs it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import MigrationError, TorporError
from torpor.base.fds import Closing
from torpor.engine.options import ReadPages, Remaining
from torpor.images import kinds
from torpor.images.store import ImageStore, load_all
from torpor.images.stores.spooled import SpooledStore
from torpor.kernel import interrupts, signal
from torpor.kernel.rlimits import raise_descriptor_limit
from torpor.kernel.sockets import Socket
from torpor.migrate import data, protocol
from torpor.migrate.behind import Bringing, Keeper, say_ready, whole_of
from torpor.migrate.connection import Connection
from torpor.migrate.filling import Filler
from torpor.migrate.giving import give, give_one
from torpor.migrate.lazy_pages import Daemon
from torpor.migrate.link import FAILED, Link, LinkLostError, Message
from torpor.migrate.metered import Pace
from torpor.migrate.sources import RemoteSource
from torpor.migrate.wire import WireError

#: A connection that has broken is waited for so long; then what is missing is lost.
AGAIN_WITHIN_S = 300.0
_RETRY_S = 0.5
#: Where nobody listens any more, and nobody is at the other end of the link, for so long, nobody is going to.
_NOBODY_WITHIN_S = 20.0


# -- the source --------------------------------------------------------------------------------------------------------


class Giver(Closing):
    """The source's end: a connection that is there before anything is stopped."""

    def __init__(self, link: Link, connection: Connection, come: Callable[[], Connection], bandwidth: int = 0) -> None:
        self._link, self._connection, self._come = link, connection, come
        self._pace = Pace(bandwidth)
        #: The destination has said that it runs there.
        self.runs: Message | None = None
        self.n_broken = 0
        #: How long the restore may take; and what is to be done when it is there, before it may run.
        self.ready_within_s = 0.0
        self.commit: Callable[[], None] = lambda: None
        #: Nothing is missing there any more.
        self.is_complete = False
        #: Nobody has come for the rest, which is among our own images now.
        self.is_kept = False
        self._is_broken = self._link_has_ended = False
        #: Somebody has asked us to give up; or only once, and has been told what that means.
        self._is_asked = self._is_warned = False
        #: What is done just now may be broken off for that.
        self._may_end = False

    def give(self, remaining: Remaining) -> None:
        """Give what is asked for: first for the restore, until it is there, then, after "go", until nothing is missing.

        Before "go" any error is one of the migration, and the tree runs on.  After it: FailedThereError, it does not
        run there; whatever else happens it must not run here again, and this returns.
        """
        self._give_until_ready(remaining.read)
        self.commit()
        if self._link.has_message():
            # Nothing is due: it has failed or gone meanwhile.
            self._link.expect()
        remaining.never_again()
        self._link.send(protocol.GO)
        with interrupts.told(self._ask_to_end):
            while not self._give_all(remaining.read) and not self._keep(remaining):
                self._is_asked = False

    def _ask_to_end(self, number: int) -> None:
        """Between two steps of what is done: a signal.  Who runs there is not left alone for one Ctrl-C."""
        if number == signal.SIGINT and not (self._is_broken or self._is_warned):
            self._is_warned = True
            log.warn(f"it may run on {self._link.peer} already, and ends there without the memory that is still here: "
                     "Ctrl-C once more gives up, and writes that into the images here")  # fmt: skip
            return
        self._is_asked = True
        if self._may_end:
            self._may_end = False
            raise interrupts.Interrupted(number)
        self._connection.abort()

    def _is_over(self) -> bool:
        return self._is_asked

    def _until_asked_to_end(self, do: Callable[[], object]) -> None:
        """Do it, or break it off; nothing else is ever broken off."""
        try:
            try:
                self._may_end = True
                do()
            finally:
                self._may_end = False
        except interrupts.Interrupted:
            pass

    def _give_all(self, read: ReadPages) -> bool:
        """Until nothing is missing; False where nobody comes for it any more."""
        while not self._is_over():
            try:
                if give(self._connection, self._pace.over(read)):
                    self.is_complete = True
                    return True
            except (WireError, OSError) as error:
                log.warn(f"{error}")
            except TorporError as error:
                log.error(f"{self._link.peer} asks for what there is not: {error.describe()}")
            self._is_broken, self._is_warned = True, False
            self._connection.close()
            self.n_broken += 1
            if self._is_over():
                return False
            log.warn(f"the way of the memory to {self._link.peer} has broken: trying for {AGAIN_WITHIN_S:.0f} s; "
                     "Ctrl-C gives up, and completes the images here")  # fmt: skip
            if not self._reach(time.monotonic() + AGAIN_WITHIN_S):
                return False
            self._is_broken = False
            log.warn(f"{self._link.peer} is there again")
        return False

    def _keep(self, remaining: Remaining) -> bool:
        """Have the rest among our own images; False where that cannot be: then it stays here, stopped."""
        self._connection.close()
        self._is_broken = True
        log.warn(f"nobody on {self._link.peer} comes for the rest of its memory: it is written here")
        try:
            remaining.complete()
        except (TorporError, OSError) as error:
            why = error.describe() if isinstance(error, TorporError) else str(error)
            log.error(f"what is left of its memory cannot be written here: {why}; it stays stopped until that can be "
                      "done: make room, and Ctrl-C tries again")  # fmt: skip
            return False
        self.is_kept = True
        return True

    def _give_until_ready(self, read: ReadPages) -> None:
        """What the restore itself touches comes like all else."""
        deadline = time.monotonic() + self.ready_within_s
        while True:
            ready = self._connection.has_more
            if not ready:
                wanted = (self._link.fileno(), self._connection.fileno())
                found = select.select(wanted, (), (), max(0.0, deadline - time.monotonic()))[0]
                if not found:
                    raise LinkLostError(f"{self._link.peer} has said nothing for {self.ready_within_s:.0f} s")
                ready = self._connection.fileno() in found
            if ready:
                give_one(self._connection, read)
            else:
                self._link.expect(protocol.READY)
                return

    def _reach(self, deadline: float) -> bool:
        """Come again; False where that has taken too long, or nobody is there any more, or we are to give up."""
        nobody_since = 0.0
        before = self._connection
        while time.monotonic() < deadline and not self._is_over():
            self._look_at_link()
            now = time.monotonic()
            try:
                self._until_asked_to_end(self._come_again)
            except ConnectionRefusedError:
                # That alone may be a filter's word; and who has all of it listens no more, either.
                nobody_since = nobody_since or now
                if self._link_has_ended and now - nobody_since > _NOBODY_WITHIN_S:
                    return False
            except (OSError, LinkLostError):
                nobody_since = 0.0
            if self._connection is not before:
                return True
            self._until_asked_to_end(lambda: time.sleep(_RETRY_S))
        return False

    def _come_again(self) -> None:
        self._connection = self._come()

    def _look_at_link(self) -> None:
        """FailedThereError where the destination says that it has not come to run: then it is there no more."""
        while not self._link_has_ended and self._link.has_message():
            try:
                message = self._link.receive(_RETRY_S)
            except MigrationError:
                self._link_has_ended = True
                return
            if message.name == FAILED and self.runs is None:
                raise self._link.failed(message)
            if message.name == protocol.RUNS:
                self.runs = message

    def close(self) -> None:
        self._connection.close()


def prepare_to_give(link: Link, bandwidth: int = 0) -> Giver | None:
    """Agree on the connection; None where there is no port to reach, so that memory cannot come later.

    *bandwidth*: of what nobody waits for, no more bytes a second; 0: as many as can.
    """
    ours = data.make_identity()
    if ours is None:
        return None
    link.send(protocol.PAGES, certificate=ours.certificate)
    answer = link.expect(protocol.PAGES)
    theirs = answer.text("certificate", "")
    if not theirs:
        return None
    address, port, identity = answer.text("address"), answer.number("port", 1, 65535), ours

    def secured(plain: list[socket.socket]) -> Connection:
        return Connection(data.secure(plain, identity, theirs)[0], link.peer)

    try:
        plain = data.reach(address, port, 1)
    except OSError as error:
        log.info(f"{address} port {port} is not to be reached ({error}): no memory can come later")
        link.send(protocol.CONNECT, connections=0)
        return None
    link.send(protocol.CONNECT, connections=1)
    return Giver(link, secured(plain), lambda: secured(data.reach(address, port, 1)), bandwidth)


# -- the destination ---------------------------------------------------------------------------------------------------


class Taker(Closing):
    """The destination's end, until it is left to who brings the pages."""

    def __init__(self, listener: data.Listener, theirs: str, connection: Connection) -> None:
        self._listener, self._theirs, self._connection = listener, theirs, connection

    def bring(self, store: SpooledStore, peer: str) -> Bringing:
        """Who brings what *store* has not, in a process of its own."""

        def work(link: Socket, keeper: Keeper) -> None:
            self._bring(link, keeper, store)

        keep = (2, store.fileno(), self._listener.fileno(), self._connection.fileno())
        return Bringing(work, peer, "look at the source's message", keep)

    def _bring(self, link: Socket, keeper: Keeper, store: ImageStore) -> None:
        raise_descriptor_limit()
        source = RemoteSource(self._connection)
        known = {entry.pid for entry in load_all(store, kinds.PSTREE)}
        daemon = Daemon(whole_of(link), store, Filler(source, keeper), known)
        daemon.remote, daemon.again = source, self._again
        daemon.may_run = True
        has_come_to_run = False

        def restored() -> None:
            nonlocal has_come_to_run
            has_come_to_run = True
            say_ready(link)

        def finish() -> None:
            if not has_come_to_run:
                log.warn("what was restored has gone before it ran: the source is not told that it has all of it")
                return
            assert daemon.remote is not None
            try:
                daemon.remote.finish()
            except (WireError, OSError) as error:
                log.warn(f"all memory is here; that cannot be told the source: {error}")

        daemon.restored, daemon.finish = restored, finish
        daemon.run()

    def _again(self) -> RemoteSource:
        deadline = time.monotonic() + AGAIN_WITHIN_S
        while True:
            try:
                return RemoteSource(_accept(self._listener, self._theirs))
            except LinkLostError as error:
                if time.monotonic() > deadline:
                    raise WireError(f"the source has not come again: {error}") from error

    def close(self) -> None:
        self._listener.close()
        self._connection.close()


def _accept(listener: data.Listener, theirs: str) -> Connection:
    return Connection(listener.accept(1, theirs)[0], "the source")


def prepare_to_take(link: Link, asked: Message) -> Taker | None:
    """Agree on the connection that *asked* is about; None where there is none."""
    theirs, here = asked.text("certificate"), os.environ.get("SSH_CONNECTION", "").split()
    ours = data.make_identity() if len(here) == 4 and data.is_certificate(theirs) else None
    try:
        listener = data.Listener(here[2], ours) if ours is not None else None
    except OSError:
        listener = None
    if listener is None or ours is None:
        link.send(protocol.PAGES)
        return None
    try:
        link.send(protocol.PAGES, address=listener.address, port=listener.port, certificate=ours.certificate)
        if link.expect(protocol.CONNECT).number("connections", 0, 1):
            return Taker(listener, theirs, _accept(listener, theirs))
    except BaseException:
        listener.close()
        raise
    listener.close()
    return None
