"""Bringing the missing pages of address spaces: those that somebody waits for at once, all others in the background.

A library: of which processes the memory is, and from where pages come, is its caller's business.  ``Filler.add`` gets
the descriptor of a userfaultfd (:mod:`torpor.objects.memory.later` makes one in a restore) and what is missing; a
``Source`` is asked for pages, and may take its time, answer with fewer, or be another one after its link has broken.
Forks of the memory are found by themselves, and followed as the memory is through mremap(2), munmap(2) and madvise(2).

Whoever lets the Filler go before it is done has to call ``give_up``: descriptors that are merely closed leave zeroes
where pages are missing.
"""

from __future__ import annotations

import errno
import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from torpor.base import log
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.base.typed import Protocol
from torpor.images.pages import Range
from torpor.kernel import missing
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import lost
from torpor.migrate.areas import Areas, Piece

#: What is asked for in the background: at first, and after a fault; and at most, when nobody has waited for long.
FIRST_BYTES, MAX_BYTES = 64 << 10, 4 << 20
_RETRY_S = 0.0002


class Source(Protocol):
    """Where pages come from: the memory of several processes, each known by a number."""

    def ask(self, ident: int, start: int, n_bytes: int) -> None:
        """Ask for the pages of process *ident* from *start* on; answers come in the order of the questions."""

    def answer(self) -> memoryview | None:
        """The pages, one or more, that were asked for first of those not answered yet; None: not there yet.

        They are good until the next call.  An error (TorporError) ends the source, not what was asked.
        """

    def fileno(self) -> int:
        """What can be polled for an answer; -1: they are there at once."""


class Witness(Protocol):
    """Who holds all descriptors as well: those of forks are told of like the others."""

    def taken(self, fd: int) -> None:
        """This one is to be filled; nothing has been done with it."""

    def ended(self, fd: int) -> None:
        """Nothing is missing there any more; it is going to be closed, and so is what the witness holds of it."""


@dataclass(slots=True)
class _Space:
    """One address space: what is missing and has not been asked for yet."""

    ident: int
    faults: OwnedFd
    missing: Areas
    n_asked: int = 0
    #: Whether it is complete, or no process has it any more.
    has_ended: bool = False

    @property
    def is_done(self) -> bool:
        return not self.missing and not self.n_asked

    @property
    def fd(self) -> int:
        """What tells of faults; not once it has ended."""
        return self.faults.fileno()


@dataclass(slots=True)
class _Question:
    """Pages of a space that have been asked for.  ``pieces``: where they belong by now, if anywhere."""

    space: _Space
    start: int
    n_bytes: int
    pieces: Areas


@dataclass(slots=True)
class Figures:
    """What it came to, in pages: those that came, those of them that somebody waited for, and zeroes that one did."""

    n_brought: int = 0
    n_waited: int = 0
    n_zeroes: int = 0


class Filler:
    """Brings pages, until all are there.  Not safe for several threads; ``step`` is to be called in a loop."""

    def __init__(self, source: Source, witness: Witness | None = None) -> None:
        self._source, self._witness = source, witness
        self._spaces: dict[int, _Space] = {}
        self._asked: deque[_Question] = deque()
        self._n_bytes = FIRST_BYTES
        self._poll = select.poll()
        self._others: dict[int, Callable[[], None]] = {}
        #: The descriptor of the source that is polled; -1: none.
        self._watched = -1
        #: Whether pages that nobody waits for are brought as well.
        self.in_background = False
        self.figures = Figures()

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing of what has been added."""
        return not self._spaces

    @property
    def n_missing(self) -> int:
        """Bytes that are missing, those that are on their way included."""
        return sum(space.missing.n_bytes for space in self._spaces.values()) + sum(
            question.pieces.n_bytes for question in self._asked
        )

    def add(self, ident: int, faults: OwnedFd, ranges: Iterable[Range]) -> None:
        """Of the process that the source calls *ident* these *ranges* are missing; *faults* becomes ours."""
        self._add(_Space(ident, faults, Areas((start, end, start) for start, end in ranges)))

    def _add(self, space: _Space) -> None:
        if space.is_done:
            space.faults.close()
            return
        if self._witness is not None:
            self._witness.taken(space.fd)
        self._spaces[space.fd] = space
        self._poll.register(space.fd, select.POLLIN)

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Do *action* whenever something can be read from *fd*."""
        self._others[fd] = action
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """End a ``watch``: *fd* is polled no longer, and may be closed."""
        del self._others[fd]
        self._poll.unregister(fd)

    def use(self, source: Source) -> None:
        """Another source from now on: what the one before has not answered is asked again.  Nobody waits in vain."""
        self._unwatch_source()
        self._source = source
        for question in self._asked:
            source.ask(question.space.ident, question.start, question.n_bytes)

    def step(self, timeout_s: float | None = None) -> None:
        """Wait until there is something to do (at most *timeout_s*), and do it."""
        self._watch_source()
        is_busy = self._can_ask() or self._may_answer()
        timeout = 0 if is_busy else None if timeout_s is None else int(timeout_s * 1000)
        for fd, _ in self._poll.poll(timeout):
            space = self._spaces.get(fd)
            if space is not None:
                self._read(space)
            elif fd in self._others:
                self._others[fd]()
        self._take_answers()
        if self._can_ask():
            self._ask_more()
            self._take_answers()

    def _watch_source(self) -> None:
        fd = self._source.fileno()
        if fd >= 0 and fd != self._watched:
            self._poll.register(fd, select.POLLIN)
            self._watched = fd

    def _unwatch_source(self) -> None:
        if self._watched >= 0:
            self._poll.unregister(self._watched)
            self._watched = -1

    def _may_answer(self) -> bool:
        return bool(self._asked) and self._source.fileno() < 0

    def _can_ask(self) -> bool:
        return self.in_background and not self._asked and any(space.missing for space in self._spaces.values())

    # -- what happens to the memory ---------------------------------------------------------------------------------

    def _read(self, space: _Space) -> None:
        for event in missing.read_events(space.fd):
            if space.has_ended:
                return
            match event:
                case missing.Fault(address):
                    self._fault(space, address & -PAGE_SIZE)
                case missing.Forked(fd):
                    self._fork(space, OwnedFd(fd))
                case missing.Moved(start, to, length):
                    for areas in self._areas_of(space):
                        areas.move(start, to, length)
                case missing.Dropped(start, end):
                    for areas in self._areas_of(space):
                        areas.take(start, end)
        self._close_if_done(space)

    def _areas_of(self, space: _Space) -> list[Areas]:
        return [space.missing, *(each.pieces for each in self._asked if each.space is space)]

    def _fork(self, space: _Space, faults: OwnedFd) -> None:
        pieces = [piece for areas in self._areas_of(space) for piece in areas]
        self._add(_Space(space.ident, faults, Areas(pieces)))

    def _fault(self, space: _Space, page: int) -> None:
        if any(each.space is space and each.pieces.has(page) for each in self._asked):
            return
        pieces = space.missing.take(page, page + PAGE_SIZE)
        if pieces:
            self._n_bytes = FIRST_BYTES
            self.figures.n_waited += 1
            self._ask(space, pieces[0])
        else:
            self.figures.n_zeroes += 1
            self._zero(space, page)

    def _zero(self, space: _Space, page: int) -> None:
        try:
            if not missing.zero(space.fd, page, PAGE_SIZE):
                missing.wake(space.fd, page, PAGE_SIZE)
        except missing.Gone:
            self._end(space)
        except missing.Changing:
            # Whoever waits is woken to look again, and is told of anew if it is missing still.
            missing.wake(space.fd, page, PAGE_SIZE)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            missing.wake(space.fd, page, PAGE_SIZE)

    # -- questions and answers ----------------------------------------------------------------------------------------

    def _ask_more(self) -> None:
        for space in self._spaces.values():
            piece = space.missing.take_first(self._n_bytes)
            if piece is not None:
                self._n_bytes = min(self._n_bytes + FIRST_BYTES, MAX_BYTES)
                self._ask(space, piece)
                return

    def _ask(self, space: _Space, piece: Piece) -> None:
        start, end, source = piece
        self._asked.append(_Question(space, source, end - start, Areas([piece])))
        space.n_asked += 1
        self._source.ask(space.ident, source, end - start)

    def _take_answers(self) -> None:
        while self._asked:
            content = self._source.answer()
            if content is None:
                return
            question = self._asked[0]
            self._place(question, content[: question.n_bytes])
            self._asked.popleft()
            space = question.space
            space.n_asked -= 1
            self._close_if_done(space)

    def _place(self, question: _Question, content: memoryview) -> None:
        """Bring what has come to where it belongs; what has not come is missing still."""
        space = question.space
        there = question.start + content.nbytes
        while question.pieces and not space.has_ended:
            piece = question.pieces.take_first(MAX_BYTES)
            assert piece is not None
            start, end, source = piece
            if source >= there:
                space.missing.add(piece)
                continue
            if source + end - start > there:
                middle = start + there - source
                space.missing.add((middle, end, there))
                end = middle
            offset = source - question.start
            self._copy(question, (start, end, source), content[offset : offset + end - start])

    def _copy(self, question: _Question, piece: Piece, content: memoryview) -> None:
        """One piece; what is left of it when the memory changes meanwhile is put back, and comes again."""
        start, end, source = piece
        space, done = question.space, 0
        fd, limit = space.fd, content.nbytes
        while start + done < end:
            try:
                n_bytes = missing.copy(fd, start + done, content[done : done + limit])
            except missing.Gone:
                self._end(space)
                return
            except missing.Changing:
                question.pieces.add((start + done, end, source + done))
                time.sleep(_RETRY_S)
                self._read(space)
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
                # More mappings than one by now, or none.
                n_bytes, limit = (PAGE_SIZE, limit) if limit == PAGE_SIZE else (0, PAGE_SIZE)
                done += n_bytes
                continue
            if n_bytes:
                self.figures.n_brought += n_bytes // PAGE_SIZE
            else:
                missing.wake(fd, start + done, PAGE_SIZE)
                n_bytes = PAGE_SIZE
            done += n_bytes

    def _close_if_done(self, space: _Space) -> None:
        if space.is_done and not space.has_ended:
            self._end(space)

    def _end(self, space: _Space) -> None:
        """All of it is there, or nobody is any more."""
        self._poll.unregister(space.fd)
        del self._spaces[space.fd]
        space.missing, space.has_ended = Areas(), True
        for question in self._asked:
            if question.space is space:
                question.pieces = Areas()
        if self._witness is not None:
            self._witness.ended(space.fd)
        space.faults.close()

    def give_up(self) -> int:
        """The pages will not come: whoever touches one of them dies of it.  How many processes lack some.

        On kernels that have no such pages (before 6.6) he waits for ever, and a process of ours that is nobody's child
        sees to that until the last of them has ended.
        """
        n_spaces = len(self._spaces)
        if n_spaces and not missing.can_poison():
            lost.hold(list(self._spaces))
            for space in list(self._spaces.values()):
                self._end(space)
            return n_spaces
        for space in list(self._spaces.values()):
            for areas in self._areas_of(space):
                for start, end, _ in areas:
                    self._poison(space, start, end)
            self._end(space)
        return n_spaces

    def _poison(self, space: _Space, start: int, end: int) -> None:
        at = start
        while at < end:
            try:
                at += missing.poison(space.fd, at, end - at) or PAGE_SIZE
            except missing.Changing:
                for _ in missing.read_events(space.fd):
                    pass
                time.sleep(_RETRY_S)
            except missing.Gone:
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    log.warn(f"memory at {at:#x} that has not come cannot be marked: {error.strerror}: it is zeroes")
                    return
                at += PAGE_SIZE
