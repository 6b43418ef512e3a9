"""The destination's side of a migration: it rebuilds what comes, and lets it go when the source has given it up.

It is started by the source, by ssh, and speaks on its standard input and output.  Until "go" its death, or that of the
link, is the end of all that it has made; from then on what it has rebuilt is the only one.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torpor
from torpor.base import log, records
from torpor.base.errors import MigrationError, TorporError
from torpor.engine import jobs, scratch
from torpor.engine.options import Notify, nobody
from torpor.images import kinds, pack
from torpor.images.pages import MAX_PARENTS
from torpor.images.store import load_all
from torpor.images.stores.opening import Location
from torpor.images.stores.spooled import Placing, Spool, SpooledStore
from torpor.migrate import data, offer, protocol
from torpor.migrate.link import FAILED, Link, LinkLostError, Message
from torpor.migrate.offer import Offer, memory_left
from torpor.migrate.spent import give_back

if TYPE_CHECKING:
    from torpor.engine.restore.ahead import Ahead
    from torpor.migrate.behind import Bringing
    from torpor.migrate.postcopy import Taker as PagesTaker

_HOME = "unpacked"
#: Of names in images; a module.
_CODING = "unicode_escape"
#: It is stopped at the source meanwhile, which does not wait for longer.
FILLED_WITHIN_S = 600.0
#: It takes some 20 ms to make so much memory ready, which is about as long as it takes until the first pages come.
_MOST_WARM = 32 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """What runs here now."""

    name: str
    pid: int


#: Takes a container that the offer in a message is about; called when nothing stands in its way but what is its own.
Taker = Callable[[Link, Message, Offer, str], "Received | None"]


def receive(link: Link, *, trust: bool = False, taker: Taker | None = None) -> Received | None:
    """Take what the other side of *link* sends; None where it was refused, or not meant.

    *trust*: as of :func:`torpor.restore`; *taker* takes containers.  MigrationError and the errors of a restore, which
    are told to the other side; nothing of it is here then.
    """
    try:
        return _receive(link, trust, taker)
    except LinkLostError:
        raise
    except (TorporError, OSError) as error:
        text, hint = (str(error), "") if isinstance(error, OSError) else (_text_of(error), error.hint or "")
        with suppress(TorporError):
            link.send(FAILED, text=text, hint=hint)
        raise


def _text_of(error: TorporError) -> str:
    return "; ".join((str(error), *getattr(error, "__notes__", ())))


def _receive(link: Link, trust: bool, taker: Taker | None) -> Received | None:
    hello = link.expect(protocol.HELLO)
    link.send(protocol.HELLO, protocol=protocol.VERSION, torpor=torpor.__version__)
    protocol.check(hello, link.peer)
    message = link.expect(protocol.OFFER)
    offered, name = offer.of(message), message.text("called", "")
    room = jobs.state_directory() / _HOME
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    if problems := [*offer.problems(offered, name, room), *_of_compression(message)]:
        refuse(link, problems)
        return None
    if offered.kind == offer.CONTAINER:
        if taker is None:
            raise MigrationError("containers are not taken here")
        return taker(link, message, offered, name)
    with ExitStack() as stack:
        source = accept(link, message, stack)
        return _Arrival(link, source, offered, name, trust, room).run()


def _of_compression(message: Message) -> Iterator[TorporError]:
    try:
        pack.check(message.text("compress", "none"))
    except TorporError as error:
        yield error


def refuse(link: Link, problems: list[TorporError]) -> None:
    """Say what stands in the way."""
    told = [[_text_of(problem), problem.hint or ""] for problem in problems[: protocol.MAX_PROBLEMS]]
    link.send(protocol.REFUSE, problems=told)


def accept(link: Link, message: Message, stack: ExitStack) -> Link | data.Receiver:
    """Say that it may come; where its data come from."""
    theirs, here = message.text("certificate", ""), os.environ.get("SSH_CONNECTION", "").split()
    listener, ours = None, None
    if theirs and len(here) == 4 and data.is_certificate(theirs) and (ours := data.make_identity()) is not None:
        with suppress(OSError):
            listener = data.Listener(here[2], ours)
            stack.callback(listener.close)
    if listener is None or ours is None:
        link.send(protocol.ACCEPT)
    else:
        link.send(protocol.ACCEPT, address=listener.address, port=listener.port, certificate=ours.certificate)
    n_connections = link.expect(protocol.CONNECT).number("connections", 0, data.MOST)
    if not n_connections:
        return link
    if listener is None:
        raise MigrationError("the source connects to where nobody listens")
    receiver = data.Receiver(listener.accept(n_connections, theirs))
    listener.close()
    stack.callback(receiver.close)
    return receiver


class _Arrival:
    """One in progress."""

    def __init__(
        self, link: Link, source: Link | data.Receiver, offered: Offer, name: str, trust: bool, room: Path
    ) -> None:
        self._link, self._source, self._offer, self._name = link, source, offered, name
        self._trust, self._room = trust, room
        self._go = 0.0
        self._stack, self._place = ExitStack(), room
        self._images: SpooledStore | None = None
        self._n_sets = 0
        self._ahead: Ahead | None = None
        self._taker: PagesTaker | None = None
        self._later: Bringing | None = None

    def run(self) -> Received | None:
        """Take the images, rebuild what they hold, and let it go; None where it does not come after all."""
        with ExitStack() as stack:
            self._stack, self._place = stack, stack.enter_context(scratch.directory(self._room))
            warm_up()
            last = self._take_rounds()
            if last is None:
                return None
            name, pid = self._rebuild(last)
            us = int((time.monotonic() - self._go) * 1e6)
            try:
                self._link.send(protocol.RUNS, pid=pid, name=name, us=us)
            except MigrationError as error:
                log.warn(f"{name or f'pid {pid}'} runs here; that cannot be told any more: {error}")
            if self._later is not None:
                self._later.wait()  # whoever has started us is not to take it for done before
        return Received(name, pid)

    def _take_rounds(self) -> Message | None:
        """The sets that come while it runs; what is said before the last one does."""
        for _ in range(MAX_PARENTS):
            message = self._link.expect(protocol.IMAGES, protocol.CANCEL, protocol.PAGES)
            if message.name == protocol.PAGES:
                self._prepare_for_later(message)
                message = self._link.expect(protocol.IMAGES, protocol.CANCEL)
            if message.name == protocol.CANCEL:
                return None
            if message.flag("last"):
                return message
            ahead = self._begin_ahead(message.number("root", 1, 1 << 22))
            ahead.take(self._take(ahead))
            self._link.send(protocol.TAKEN)
        raise MigrationError("the source does not come to an end")

    def _take(self, placing: Placing | None = None, *, is_last: bool = False) -> SpooledStore:
        """The next set, whose parent is the one before."""
        self._n_sets += 1
        name, before = f"round {self._n_sets}", self._images if is_last else None
        where = spool(self._offer, self._place, before)
        self._images = SpooledStore(self._source, name, where, parent=self._images, placing=placing)
        self._stack.enter_context(self._images)
        return self._images

    def _take_last(self, last: Message) -> SpooledStore:
        images = self._take(is_last=True)
        if isinstance(self._source, data.Receiver):
            self._source.close()  # and its threads: who has some cannot enter mount namespaces
        if len(load_all(images, kinds.PSTREE)) == 1:
            images.read_once(give_back)
        elif self._ahead is not None:
            # Of several, one may be looked at again for what it shares with another.
            self._ahead.put_all_back()
        if last.flag("later"):
            if self._taker is None:
                raise MigrationError("memory is to come later, and there is no way for it")
            self._later = self._stack.enter_context(self._taker.bring(images, self._link.peer))
        return images

    def _prepare_for_later(self, message: Message) -> None:
        from torpor.migrate import postcopy

        self._taker = postcopy.prepare_to_take(self._link, message)
        if self._taker is not None:
            self._stack.callback(self._taker.close)

    def _begin_ahead(self, root: int) -> Ahead:
        """What does of the restore what can be done before the last images come: nothing is stopped for it yet."""
        if self._ahead is None:
            from torpor.engine.restore.ahead import Ahead

            self._ahead = self._stack.enter_context(Ahead(root))
        return self._ahead

    def _rebuild(self, last: Message) -> tuple[str, int]:
        """What a job needs here is made while the source is about to stop it; its last images are taken then."""

        def restore(place: Location, renames: tuple[tuple[str, str], ...], notify: Notify) -> int:
            del place
            return self._restore(self._take_last(last), renames, notify)

        if self._offer.kind == offer.PROCESS:
            return "", restore("", (), nobody)
        about = jobs.note.decode(last.text("note").encode(errors="surrogateescape"), "the source's word")
        job = jobs.wake("", about, restore, name=self._name)
        return job.name, job.pid

    def _restore(self, images: Location, renames: tuple[tuple[str, str], ...], notify: Notify) -> int:
        def told(action: str, pid: int) -> None:
            notify(action, pid)
            if action == "post-restore":
                self._wait_for_go()

        words: dict[str, Any] = dict.fromkeys(self._offer.told, True)
        # Sums are for disks: the link has its own.
        return torpor.restore(
            images, renames=renames, notify=told, trust=self._trust, verify=False, ahead=self._ahead, later=self._later,
            **words,
        )  # fmt: skip

    def _wait_for_go(self) -> None:
        """All is there, and would run at once: whose is it?"""
        self._link.send(protocol.READY)
        self._link.expect(protocol.GO, timeout_s=protocol.GO_WITHIN_S)
        self._go = time.monotonic()


def spool(offered: Offer, room: Path, before: SpooledStore | None = None) -> Spool:
    """For what comes: memory where there is plenty of it, since what is read from there soon need not be on a disk.

    For the last set, with the one *before* it, which is as large perhaps, that memory is made ready: it runs still.
    """
    left = memory_left()
    # What has been rebuilt is there a second time, for a moment.
    made = Spool(None, left // 2) if left > 3 * offered.memory_bytes else Spool(room)
    if before is not None:
        made.warm_up(min(before.n_spooled, _MOST_WARM))
    return made


def warm_up() -> None:
    """Import what a restore may need, whatever comes, and make what is made when it is first used, while nothing is
    stopped for it.
    """
    import torpor.engine.option_table
    import torpor.engine.restore.ahead
    import torpor.engine.restore.run
    import torpor.kernel.features

    top = Path(torpor.__file__).parent
    for path in sorted((top / "objects").rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        if parts[-1] != "__init__" and not _is_of_another_machine(parts):
            import_module(".".join(parts))
    records.ready(*_records())
    codecs.lookup(_CODING)


def _records() -> set[type]:
    """All classes of records that there are by now."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("torpor.")]
    return {
        each for module in modules for each in vars(module).values()
        if isinstance(each, type) and "__record_fields__" in vars(each)
    }  # fmt: skip


def _is_of_another_machine(parts: Sequence[str]) -> bool:
    return parts[2] == "arch" and len(parts) > 4 and parts[3] != os.uname().machine


def of_standard_streams() -> Link:
    """The link of a command that ssh has started; what is printed goes where errors go from now on."""
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Link(reader, writer, "the source")
