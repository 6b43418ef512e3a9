"""Pages on their way to a page server: the sink of a dump whose memory is to be elsewhere."""

from __future__ import annotations

from _thread import allocate_lock
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from torpor.base.fds import Closing
from torpor.images import messages as m
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import PageRun
from torpor.images.pages import BasePageStream, Piece, Range, marked_lazy
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import wire
from torpor.migrate.connection import Connection
from torpor.migrate.wire import NUMBER, Message, WireError

_TOP = 1 << 64


class RemoteSink(Closing):
    """PageSink of a page server, whose connection becomes its own.  One stream at a time.

    What was sent is there once ``settle`` has returned; a connection that ends before leaves nothing there.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = allocate_lock()

    def open(
        self,
        kind: ImageKind[m.pagemap_head],
        ident: int,
        n_bytes: int | None = None,
        lazy: Sequence[Range] = (),
        runs: Callable[[], Sequence[PageRun]] | None = None,
    ) -> RemoteStream:
        if not self._lock.acquire(timeout=0):
            raise ValueError("a page server takes one stream after the other")
        connection = self._connection
        connection.say(Message(wire.OPEN2, whose=wire.whose_is(kind, ident)))
        has_parent = bool(connection.read(1)[0])
        return RemoteStream(connection, wire.whose_is(kind, ident), lazy, has_parent, self._lock.release)

    def has_parent(self, kind: ImageKind[m.pagemap_head], ident: int) -> bool:
        """Whether the server has parent images, and a page map of this task or segment among them."""
        self._connection.say(Message(wire.PARENT, whose=wire.whose_is(kind, ident)))
        return bool(NUMBER.unpack(self._connection.read(NUMBER.size))[0] > 0)

    def settle(self) -> None:
        """WireError where the server does not say that it has all of it."""
        command = wire.FORCE_CLOSE if self._connection.is_shared else wire.CLOSE
        self._connection.say(Message(command))
        status = NUMBER.unpack(self._connection.read(NUMBER.size))[0]
        if status:
            raise WireError(f"{self._connection.name} could not keep the pages (status {status})", hint="see its log")
        self._connection.end()

    def close(self) -> None:
        self._connection.close()


class RemoteStream(BasePageStream):
    """PageStream to a page server.  ``has_parent``: its parent images know the task or segment."""

    in_any_order = False

    def __init__(
        self,
        connection: Connection,
        whose: int,
        lazy: Sequence[Range],
        has_parent: bool,
        at_end: Callable[[], None],
    ) -> None:
        self._connection, self._whose, self._at_end = connection, whose, at_end
        self.has_parent = has_parent
        self._lazy = lazy
        self._pieces: Sequence[Piece] = ()
        #: Told, but not sent: there may be pages before them in the room that is asked for next.
        self._runs: deque[PageRun] = deque()

    def run(self, run: PageRun) -> None:
        if run.present:
            raise ValueError(f"{run} is told without its bytes")
        self._runs.append(run)

    def room(self, pieces: Sequence[Piece]) -> int:
        self._pieces = pieces
        return 0

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        content = buffers[0] if len(buffers) == 1 else memoryview(b"".join(buffers))
        out: list[bytes | memoryview] = []
        done = 0
        for first, length in self._pieces:
            out += self._runs_before(first)
            for start, end, flags in self._marked(first, first + length):
                message = Message(wire.ADD_F, (end - start) // PAGE_SIZE, start, self._whose, flags)
                out += (wire.pack(message), content[done : done + end - start])
                done += end - start
        self._connection.send(out)

    def _runs_before(self, end: int) -> list[bytes]:
        """Messages about the runs that have been told and lie before *end*."""
        found = []
        while self._runs and self._runs[0].vaddr < end:
            run = self._runs.popleft()
            found.append(wire.pack(Message(wire.ADD_F, run.n_pages, run.vaddr, self._whose, run.flags)))
        return found

    def _marked(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The parts of a range, each with the flags of its run; of what may come later, the rest is at hand."""
        lazy = self._lazy
        at = bisect_right(lazy, (start, _TOP))
        first = at - 1 if at and lazy[at - 1][1] > start else at
        return marked_lazy([(start, end)], islice(lazy, first, None))

    def close(self) -> None:
        try:
            self._connection.send(self._runs_before(_TOP))
        finally:
            self._at_end()

    def abandon(self) -> None:
        # The server is not told that all is there, and keeps nothing.
        self._at_end()
