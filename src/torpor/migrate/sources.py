"""Where the missing pages of a restored process come from: images here, or a page server."""

from __future__ import annotations

import time
from collections import deque

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import Closing
from torpor.images.pages import Contents, open_contents
from torpor.images.store import ImageStore
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import Connection, Where, connect
from torpor.migrate.wire import NUMBER, Message, WireError

_RETRY_S, _SAY_EVERY = 0.5, 20


class ImageSource(Closing):
    """Source of the page maps in *store*, by the pids in the images.  ImageError where a page is not there."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._contents: dict[int, Contents] = {}
        self._asked: deque[tuple[int, int, int]] = deque()
        self._room = memoryview(bytearray(wire.MAX_GET_BYTES))

    def ask(self, ident: int, start: int, n_bytes: int) -> None:
        self._asked.append((ident, start, n_bytes))

    def answer(self) -> memoryview | None:
        if not self._asked:
            return None
        return self.read(*self._asked.popleft())

    def prepare(self, ident: int) -> Contents:
        """Open what is read of a process, which may be removed then."""
        contents = self._contents.get(ident)
        if contents is None:
            contents = self._contents[ident] = open_contents(self._store, ident, page_bytes=PAGE_SIZE)
        return contents

    def read(self, ident: int, start: int, n_bytes: int) -> memoryview:
        """The pages from *start* on, as many of them as are there."""
        contents = self.prepare(ident)
        found = self._room[: min(n_bytes, len(self._room))]
        if not contents.read(start, found):
            found = found[:PAGE_SIZE]
            if not contents.read(start, found):
                raise WireError(f"the images have not the page of pid {ident} at {start:#x}")
        return found

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        for contents in self._contents.values():
            contents.close()
        self._contents.clear()


class RemoteSource(Closing):
    """Source that is a page server which has pages: ``criu dump --lazy-pages``, ``criu page-server --lazy-pages``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: deque[Message] = deque()
        self._room = memoryview(bytearray(wire.MAX_GET_BYTES))
        #: The answer that is on its way: its bytes, and how many of them have come.
        self._coming: Message | None = None
        self._n_come = 0

    def ask(self, ident: int, start: int, n_bytes: int) -> None:
        message = Message(wire.GET, n_bytes // PAGE_SIZE, start, ident)
        self._connection.say(message)
        self._asked.append(message)

    def answer(self) -> memoryview | None:
        if not self._asked or not self._connection.can_read():
            return None
        asked = self._asked.popleft()
        told = self._connection.next_message()
        if told is None:
            raise WireError(f"{self._connection.name} has hung up while pages were missing")
        is_answer = told.command in (wire.ADD, wire.ADD_F) and told.run.present
        if not is_answer or not told.n_pages:
            raise WireError(f"{self._connection.name} has not the pages at {asked.vaddr:#x} of pid {asked.whose}")
        if (told.vaddr, told.whose) != (asked.vaddr, asked.whose) or told.n_pages > asked.n_pages:
            raise WireError(f"{self._connection.name} sends other pages than those that it was asked for")
        found = self._room[: told.n_bytes]
        self._connection.read_into(found)
        return found

    def fileno(self) -> int:
        return self._connection.fileno()

    def finish(self) -> None:
        """All pages have come: the other end need not keep them any more.  WireError where it does not answer."""
        self._connection.say(Message(wire.CLOSE))
        status = NUMBER.unpack(self._connection.read(NUMBER.size))[0]
        if status:
            raise WireError(f"{self._connection.name} ends with status {status}")
        self._connection.end()

    def close(self) -> None:
        self._connection.close()


def reach(where: Where, within_s: float) -> RemoteSource:
    """The page server, which may not be there yet, or not be reached just now; TorporError when that lasts too long."""
    deadline = time.monotonic() + within_s
    count = 0
    while True:
        try:
            return RemoteSource(connect(where))
        except TorporError as error:
            if time.monotonic() > deadline or where.fd >= 0 or not where.port:
                raise
            if count % _SAY_EVERY == 1:
                log.warn(f"waiting for the page server: {error}")
        count += 1
        time.sleep(_RETRY_S)
