"""A page server that gives pages: of images, or of a dump whose processes stay stopped until all are asked for."""

from __future__ import annotations

from collections.abc import Callable

from torpor.base import log
from torpor.engine.options import ReadPages, Remaining
from torpor.images.pagemap import PE_PRESENT
from torpor.kernel import interrupts
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import Connection, Listener
from torpor.migrate.wire import NUMBER, Message, WireError


def give(connection: Connection, read: ReadPages, *, given: Callable[[], None] | None = None) -> bool:
    """Answer whoever asks for pages; whether he has said that this was all, and not just gone.  WireError.

    *given* is called before the first page goes out.
    """
    while (message := connection.next_message(within_s=None)) is not None:
        if message.command in (wire.CLOSE, wire.FORCE_CLOSE):
            connection.send([NUMBER.pack(0)])
            connection.end()
            return True
        _answer(connection, message, read, given)
        given = None
    return False


def give_one(connection: Connection, read: ReadPages) -> None:
    """Answer the next question.  WireError, also where he hangs up."""
    message = connection.next_message()
    if message is None:
        raise WireError(f"{connection.name} has hung up")
    _answer(connection, message, read, None)


def _answer(connection: Connection, message: Message, read: ReadPages, given: Callable[[], None] | None) -> None:
    if message.command != wire.GET:
        raise WireError(f"{connection.name} sends pages, and this page server only gives them")
    if not message.n_pages:
        raise WireError(f"{connection.name} asks for no pages")
    found = read(message.whose, message.vaddr, min(message.n_bytes, wire.MAX_GET_BYTES))
    if given is not None:
        given()
    answer = Message(wire.ADD_F, found.nbytes // PAGE_SIZE, message.vaddr, message.whose, PE_PRESENT)
    connection.send([wire.pack(answer), found])


class Giving:
    """Gives the pages of a dump, whoever comes and comes again, until one has said that he has all.

    Until the first page has gone out the dump can fail, and its processes run on.  From then on they may run elsewhere,
    and never run here again: whatever ends us ends them.
    """

    def __init__(self, listener: Listener, ready: Callable[[], None]) -> None:
        self._listener, self._ready = listener, ready
        self._has_given = False

    def __call__(self, remaining: Remaining) -> None:
        """Until all has been given."""
        log.info(f"Pages can be asked for at port {self._listener.port}; the processes stay stopped until then")
        self._ready()
        try:
            while not self._serve(remaining.read):
                log.warn("whoever asked for pages has gone before he had all: waiting for him to come again")
        except interrupts.Interrupted as error:
            if not self._has_given:
                raise
            log.error(f"interrupted by signal {error.number} before all pages were asked for: the processes may run "
                      "elsewhere by now, and end here")  # fmt: skip

    def _serve(self, read: ReadPages) -> bool:
        try:
            with self._listener.accept() as connection:
                return give(connection, read, given=self._note)
        except WireError as error:
            log.warn(str(error))
            if self._listener.fileno() < 0:
                raise
            return False

    def _note(self) -> None:
        self._has_given = True
