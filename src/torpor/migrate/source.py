"""The source's side of a migration: it owns what runs until the destination has rebuilt it, and then gives it up.

    hello, offer            nothing is stopped yet, and each side says what stands in the way
    images                  the tree is stopped, and its images go as they are read
    ready                   the destination has rebuilt everything; nothing of it runs
    go                      there is no way back here: the tree is killed, by a caretaker if we die
    runs                    it runs there, and is forgotten here

Any failure before "go" lets the tree run on here.  After it nothing runs here by itself any more; until "runs" comes
the images stay.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torpor
from torpor.base import log
from torpor.base.errors import MigrationError, UnknownEndError, UsageError
from torpor.base.ids import Pid
from torpor.engine import jobs, scratch
from torpor.engine.jobs import Job
from torpor.engine.stats import DumpStats
from torpor.images import pack
from torpor.images.stores.opening import Location
from torpor.images.stores.stream import TarStore
from torpor.kernel import interrupts
from torpor.kernel.procfs.status import read_status
from torpor.kernel.userfaultfd import can_track
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import data, homes, keeping, offer, protocol, rounds
from torpor.migrate.link import DataWay, FailedThereError, Link, LinkLostError, Message, encode
from torpor.migrate.metered import Metered
from torpor.migrate.offer import Offer
from torpor.migrate.rounds import Aim, Round, Rounds
from torpor.migrate.way import Destination, Remote
from torpor.objects.memory import tracking

if TYPE_CHECKING:
    from torpor.migrate.postcopy import Giver

#: The destination waits so long for "go" at least, once it is ready, and so we do not say it later than half of that.
_GO_WITHIN_S = protocol.GO_WITHIN_S / 2
#: For how long "runs" is waited for: whoever has been told "go" has little left to do.
_RUNS_WITHIN_S = 60.0
#: It is stopped here while "ready" is waited for: so long, and as long as it takes to fill its memory there, slowly.
READY_WITHIN_S, _FILLED_A_SECOND = 60.0, 64 << 20
#: Of the last set as much as goes in the time that is aimed at, or so; it is there whether it is needed or not.
_ROOM_BYTES = 32 << 20
NEVER, AUTO, NOW = "never", "auto", "now"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """``name``: what a job is called there, "" for as here.  ``told``: arguments of :func:`torpor.dump`.

    ``via_ssh``: data go by ssh, too, and not by connections of their own (``n_connections``).  ``compress``: as a
    stream is, "none", "zstd" or "lz4".  ``bandwidth``: bytes a second that may be sent; 0: as many as can.
    ``post_copy``: whether memory may go when it runs there: NEVER, when rounds do not come to the aim (AUTO), or at
    once, without any (NOW).  ``aim``: when memory has gone for long enough while all runs; ``tell`` is told what each
    round came to.
    ``persist``: a directory that gets a copy of the last images, "" for none.
    """

    name: str = ""
    rsh: str = ""
    remote: str = "torpor"
    trust: bool = False
    dry_run: bool = False
    keep_source: bool = False
    via_ssh: bool = False
    n_connections: int = 2
    compress: str = "none"
    bandwidth: int = 0
    post_copy: str = NEVER
    aim: Aim = field(default_factory=Aim)
    tell: Callable[[Round], None] = lambda made: None
    told: Mapping[str, Any] = field(default_factory=dict)
    persist: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it: how it is called, and its pid, there.  ``kept``: where its images are here, if they are."""

    host: str
    name: str
    pid: int
    n_processes: int
    memory_bytes: int
    sent_bytes: int
    downtime_s: float
    total_s: float
    rounds: tuple[Round, ...] = ()
    kept: str = ""
    #: How much memory was sent only when it ran there already.
    later_bytes: int = 0


def check(wishes: Wishes, label: str = "") -> None:
    """UsageError where memory is wished to come later, and something else that cannot be with it.

    *label* is that of a container, whose memory never does.  ImageError where nothing here compresses as is wished.
    """
    pack.check(wishes.compress)
    asked = "--post-copy now" if wishes.post_copy == NOW else "--on-timeout post-copy"
    if wishes.post_copy != NOW and wishes.aim.on_timeout != rounds.POST_COPY:
        return
    if label:
        raise UsageError(f"{asked}: {label} is a container, which has all of its memory there before it runs")
    if wishes.keep_source or wishes.persist:
        word = "--keep-source" if wishes.keep_source else "--persist"
        raise UsageError(f"{asked} and {word} exclude each other: what runs there needs the memory here")
    if wishes.via_ssh:
        raise UsageError(
            f"{asked} and --via ssh exclude each other: memory that comes later has a connection of its own"
        )


def migrate(pid: int, job: Job | None, where: Destination, wishes: Wishes) -> Moved | None:
    """Move *pid* and everything below it, the root of *job* if it is one's, to the host *where*; None for a dry run.

    MigrationError and the errors of a dump: it runs on here.  UnknownEndError: it does not run here, and perhaps there.
    """
    check(wishes)
    homes.sweep()
    began = time.monotonic()
    made = offer.make(pid, job.name if job is not None else "", wishes.told)
    if wishes.persist:
        keeping.check(wishes.persist, made.memory_bytes)
    with Remote(where, remote_words(wishes), wishes.rsh) as remote:
        link = remote.link
        try:
            with ExitStack() as stack:
                name, way = agree(link, made, wishes, stack)
                if wishes.dry_run:
                    link.send(protocol.CANCEL)
                    return None
                return _Move(link, way, str(where), pid, job, made, name, wishes, began).run()
        except LinkLostError as error:
            remote.explain(error)
            raise


def remote_words(wishes: Wishes) -> list[str]:
    """What runs on the other host."""
    return [wishes.remote, "receive", "--stdio", *(["--trust"] if wishes.trust else [])]


def agree(link: Link, made: Offer, wishes: Wishes, stack: ExitStack, **more: object) -> tuple[str, Metered]:
    """The destination takes it; how it will be called there, and the way for its data.  *more* is said in the offer.

    MigrationError with all that stands in the way.
    """
    link.send(protocol.HELLO, protocol=protocol.VERSION, torpor=torpor.__version__)
    answer = link.expect(protocol.HELLO)
    protocol.check(answer, link.peer)
    name = wishes.name or made.name
    ours = None if wishes.via_ssh or wishes.dry_run else data.make_identity()
    link.send(protocol.OFFER, **made.fields(), called=name, certificate=ours.certificate if ours else "",
              compress=wishes.compress, **more)  # fmt: skip
    answer = link.expect(protocol.ACCEPT, protocol.REFUSE)
    if answer.name == protocol.REFUSE:
        raise _refusal(answer, link.peer)
    sender = _connect(link, answer, ours, wishes)
    if sender is None:
        return name, Metered(DataWay(link), wishes.bandwidth)
    stack.callback(sender.close)
    return name, Metered(sender, wishes.bandwidth)


def _connect(link: Link, answer: Message, ours: data.Identity | None, wishes: Wishes) -> data.Sender | None:
    """Connections for data, if there is a port to reach; None where ssh is the way."""
    theirs = answer.text("certificate", "")
    plain: list[socket.socket] = []
    if ours is not None and theirs:
        address, port = answer.text("address"), answer.number("port", 1, 65535)
        try:
            plain = data.reach(address, port, wishes.n_connections)
        except OSError as error:
            log.info(f"{address} port {port} is not to be reached ({error}): all goes by ssh")
    link.send(protocol.CONNECT, connections=len(plain))
    if ours is None or not plain:
        return None
    return data.Sender(data.secure(plain, ours, theirs))


def _refusal(answer: Message, peer: str) -> MigrationError:
    reasons, hints = [], []
    for entry in answer.entries("problems", protocol.MAX_PROBLEMS):
        match entry:
            case [str(text), str(hint)]:
                reasons.append(text)
                hints += [hint] if hint else []
            case _:
                answer.refuse("problems")
    return MigrationError(f"{peer} refuses: {'; '.join(reasons)}", hint="; ".join(dict.fromkeys(hints)) or None)


class _Move:
    """One in progress."""

    def __init__(
        self,
        link: Link,
        way: Metered,
        host: str,
        pid: int,
        job: Job | None,
        made: Offer,
        name: str,
        wishes: Wishes,
        began: float,
    ) -> None:
        self._way = way
        self._link, self._host, self._pid, self._job, self._offer = link, host, pid, job, made
        self._name, self._wishes, self._began = name, wishes, began
        self._runs: Message | None = None
        self._lost: MigrationError | None = None
        self._go_ns = 0
        self._copy, self._place = "", Path()
        self._giver: Giver | None = None
        self._rounds = Rounds(wishes.aim, wishes.tell, self._taken)

    def run(self) -> Moved:
        """Move it, and tell what came of it once it runs there.

        MigrationError: it runs on here, or sleeps in images here, or where it runs is not known, as the error says.
        """
        if self._job is not None:
            made = jobs.checkpoint(self._job, self._dump, by=f"torpor migrate to {self._host}", has_moved=self._is_over)
            kept, how = str(made.place), f"torpor restore {self._job.name}@{made.number}"
            stats = made.stats
        else:
            stats, kept = self._move_process()
            how = f"torpor restore {kept}"
        if self._giver is not None and (self._runs is None or not self._giver.is_complete):
            raise self._left_behind(self._giver, stats, kept, how)
        if self._runs is None:
            raise self._unknown(kept, how)
        return self._moved(stats, kept)

    def _is_over(self) -> bool:
        """Whether it runs there, and nothing of it is to stay here; a copy of it, if one is wished, is made now."""
        if self._giver is not None:
            return self._giver.is_complete
        if self._runs is None or self._wishes.keep_source:
            return False
        if self._wishes.persist:
            names = [f"round{made.number}" for made in self._rounds.done]
            self._copy = keeping.keep_if_possible(self._wishes.persist, self._place, self._place.parent, names)
        return not self._wishes.persist or bool(self._copy)

    def _move_process(self) -> tuple[DumpStats | None, str]:
        """As of a job, for a process: its images lie where they are found by hand until it runs there."""
        stats: DumpStats | None = None
        is_whole = False
        with ExitStack() as stack:
            home = stack.enter_context(homes.held(homes.home() / homes.of_process(self._pid)))
            place = home / homes.IMAGES

            def commit(images: str) -> None:
                nonlocal is_whole
                stack.enter_context(interrupts.held())
                is_whole = True

            try:
                stats = self._dump(place, (), jobs.Commit(commit))
            except BaseException as error:
                if not is_whole or os.path.exists(f"/proc/{self._pid}"):
                    shutil.rmtree(home, ignore_errors=True)
                    raise
                log.warn(f"pid {self._pid} is in {place}, but: {error}")
            if self._is_over():
                shutil.rmtree(home, ignore_errors=True)
        return stats, str(place)

    def _dump(self, place: Location, notes: tuple[tuple[str, bytes], ...], commit: jobs.Commit) -> DumpStats:
        def committed(images: str) -> None:
            if self._giver is not None:
                # The restore asks for pages meanwhile, which are given when all else of the dump is done.
                self._giver.ready_within_s = within_s
                self._giver.commit = lambda: ready(images)
                return
            # While the other side rebuilds it, and nothing can be heard of that yet.
            commit.foresee()
            self._link.expect(protocol.READY, timeout_s=within_s)
            ready(images)

        def ready(images: str) -> None:
            since = time.monotonic()
            commit(images)
            if time.monotonic() - since > _GO_WITHIN_S:
                raise MigrationError(f"{self._host} has been ready for too long: writing that down here took its time")
            self._go_ns = time.perf_counter_ns()

        within_s = READY_WITHIN_S + self._offer.memory_bytes / _FILLED_A_SECOND
        with ExitStack() as stack:
            room = stack.enter_context(scratch.directory(homes.home()))

            def way() -> TarStore:
                self._announce()
                return self._store(room)

            def once_more() -> None:
                if has_more:
                    assert tracker is not None
                    tracker.forget_flags()
                    self._rounds.one_more(self._pid, self._place.parent, tracker, way, self._wishes.told)
                self._announce(is_last=True, note=dict(notes).get(jobs.note.NAME, b"").decode())
                also.begin()

            if isinstance(place, str | os.PathLike):
                self._place = Path(place)
            tracker, last = None, ""
            if self._wishes.aim.most > 0 and self._wishes.post_copy != NOW and can_track():
                tracker = stack.enter_context(tracking.Tracker())
                tracker.make_room(homes.home(), _ROOM_BYTES)
                assert isinstance(place, str | os.PathLike)
                os.mkdir(place, 0o700)
                with self._way.watched(self._rounds.look):
                    last = self._told_why(self._rounds.run)(
                        self._pid, Path(place).parent, tracker, way, self._wishes.told
                    )
            self._giver = self._prepare_for_later(stack)
            # Most of what a dump looks at while all runs takes longer than to send what has been written meanwhile.
            has_more = bool(last) and self._rounds.is_near and self._giver is None
            if has_more:
                last = self._rounds.next
            also = stack.enter_context(self._store(room, shared=True))
            stats = self._told_why(torpor.dump)(
                self._pid, place, made_by="torpor migrate", notes=notes, commit=committed,
                also=also, last_words=((self._link.writer, encode(protocol.GO)),),
                parent=f"../{last}" if last else "", tracker=tracker, once_more=once_more,
                give=self._giver.give if self._giver is not None else None, **self._wishes.told,
            )  # fmt: skip
        try:
            within_s = _RUNS_WITHIN_S if self._giver is None or self._giver.is_complete else 1.0
            self._runs = (self._giver and self._giver.runs) or self._link.expect(protocol.RUNS, timeout_s=within_s)
        except MigrationError as error:
            self._lost = error
        if self._runs is None or self._wishes.keep_source or self._wishes.persist:
            self._rounds.settle(self._place.parent)
        return stats

    def _announce(self, *, is_last: bool = False, note: str = "") -> None:
        """The next set is about to go."""
        root, later = read_status(Pid(self._pid)).ns_pids[-1], is_last and self._giver is not None
        self._link.send(protocol.IMAGES, last=is_last, root=root, later=later, note=note)

    def _store(self, room: Path, *, shared: bool = False) -> TarStore:
        return TarStore(
            self._way, f"the link to {self._host}", self._wishes.compress, spool=str(room), sums=False, shared=shared
        )

    def _prepare_for_later(self, stack: ExitStack) -> Giver | None:
        """What gives the rest of the memory when it runs there, if that is wished, or the best that can be had."""
        wishes = self._wishes
        is_wished = wishes.post_copy == NOW or (self._rounds.is_timed_out and wishes.aim.on_timeout == rounds.POST_COPY)
        is_better = wishes.post_copy == AUTO and bool(self._rounds.done) and not self._rounds.is_near
        if not (is_wished or is_better) or wishes.keep_source or wishes.persist:
            return None
        from torpor.migrate.postcopy import prepare_to_give

        giver = None if wishes.via_ssh else prepare_to_give(self._link, wishes.bandwidth)
        if giver is not None:
            stack.callback(giver.close)
        elif is_wished:
            raise MigrationError(
                f"memory cannot go to {self._host} when it runs there: there is no way but ssh",
                hint="--post-copy never; or have a port of the other host reached, and openssl on both",
            )
        return giver

    def _taken(self) -> None:
        """A round lies there as it is going to be needed."""
        self._link.expect(protocol.TAKEN, timeout_s=READY_WITHIN_S + self._offer.memory_bytes / _FILLED_A_SECOND)

    def _told_why(self, dump: Callable[..., T]) -> Callable[..., T]:
        """*dump*, whose error about a lost connection is what the other side says of it, if it says something."""

        def run(*arguments: Any, **words: Any) -> T:
            try:
                return dump(*arguments, **words)
            except LinkLostError as error:
                raise self._link.why(error) from error

        return run

    @property
    def _what(self) -> str:
        return self._job.name if self._job is not None else f"pid {self._pid}"

    def _left_behind(self, giver: Giver, stats: DumpStats | None, kept: str, how: str) -> UnknownEndError:
        """What is known where memory was to come later, and one of the two things that end that well has not come."""
        what, host = self._what, self._host
        if giver.is_complete:
            return UnknownEndError(
                f"{what} has come to run on {host}, with all of its memory, and not here any more; how it is called "
                f"there has not been told: {self._lost}",
                hint=f"look on {host}",
            )
        left = f" ({stats.pages_lazy * PAGE_SIZE >> 20} MB of it were to go when it runs there)" if stats else ""
        if self._runs is not None:
            known = f"has come to run on {host}, where not all of its memory has gone{left}: it ends there without that"
        else:
            known = f"has been given to {host}, and whether it has come to run there is not known: {self._lost}{left}"
        return UnknownEndError(
            f"{what} does not run here any more; it {known}. All of it, as it was when it was stopped, is in {kept}",
            hint=f"look on {host}; only if it does not run there: {how}",
        )

    def _unknown(self, kept: str, how: str) -> MigrationError:
        error, what = self._lost, self._what
        if isinstance(error, FailedThereError):
            return MigrationError(f"{error.describe()}: {what} runs nowhere; its images are in {kept}", hint=how)
        return UnknownEndError(
            f"{what} does not run here any more, and whether it runs on {self._host} is not known: {error}; its images "
            f"are in {kept}",
            hint=f"look on {self._host}; if it does not run there: {how}",
        )

    def _moved(self, stats: DumpStats | None, kept: str) -> Moved:
        assert self._runs is not None
        frozen_ns = stats.watch.began_ns.get("freezing", self._go_ns) if stats is not None else self._go_ns
        # What the destination did since it heard "go" is told by its own clock.
        downtime_s = (self._go_ns - frozen_ns) / 1e9 + self._runs.number("us") / 1e6
        is_kept = self._wishes.keep_source or self._wishes.persist
        return Moved(
            self._host, self._name or f"pid {self._runs.number('pid')}", self._runs.number("pid"),
            stats.n_processes if stats is not None else 0, self._offer.memory_bytes, self._way.n_sent, downtime_s,
            time.monotonic() - self._began, tuple(self._rounds.done), self._copy or (kept if is_kept else ""),
            stats.pages_lazy * PAGE_SIZE if stats is not None else 0,
        )  # fmt: skip
