"""A container moves to another host while it runs, whatever its engine is; that engine, as it is, owns what it has.

    documents       by a pre-checkpoint of the engine's, which tells how it is configured, and copies nothing
    rounds          of its memory
    begin           the engine there restores it, until ours waits there for what is in it
    files           what it has written to its file system, and once more its memory
    the last dump   the engine here checkpoints it: its runtime's ``criu`` has us do that (see ``migrate.meeting``)

So what both engines do besides is no part of the time for which it is stopped.  Before "go" any failure lets it run on
here; after it the container lies in the engine's storage here as a checkpoint until the destination says that it runs.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torpor.base import log
from torpor.base.errors import MigrationError, TorporError, UnknownEndError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, replace
from torpor.containers import arriving
from torpor.containers.arriving import BEGIN, FILES, REBUILD, ROOT, SHM, SHM_POINT, VOLUME, WAITS
from torpor.containers.asking import Asking
from torpor.containers.layer import Directory
from torpor.containers.mapped import Mapped
from torpor.containers.model import Container, Words
from torpor.containers.oci import RUNC
from torpor.containers.together import ASKED, FAILED, FILED, LOST, NONE, READY, STOPPED, WAITING
from torpor.engine.dump import run as engine
from torpor.engine.options import DumpOptions, policies_of
from torpor.engine.stats import DumpStats
from torpor.images.store import ImageStore
from torpor.images.stores.stream import TarStore
from torpor.kernel.procfs.status import read_status
from torpor.kernel.userfaultfd import can_track
from torpor.migrate import homes, keeping, meeting, protocol, source
from torpor.migrate.link import FailedThereError, Link, LinkLostError, Message, encode
from torpor.migrate.metered import Metered
from torpor.migrate.offer import Offer
from torpor.migrate.rounds import Rounds
from torpor.migrate.source import Moved, Wishes
from torpor.migrate.way import Destination
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.memory import tracking

_RUNS_WITHIN_S = 60.0


def migrate(
    container: Container, where: Destination, wishes: Wishes, words: Words, volumes: str = "", bundle: str = ""
) -> Moved | None:
    """Move *container*, of Podman or of runc, to the host *where*, with options of its engine's; None for a dry run.

    *volumes*: COPY, SHARED (the other host has them already), or "" where there are none.  *bundle*: where that of a
    container of runc is on the other host, "" for where it is here.

    MigrationError, EngineError: it runs on here.  UnknownEndError: it does not run here, and perhaps there.
    """
    source.check(wishes, container.label)
    homes.sweep()
    if container.engine == RUNC.name:
        from torpor.containers import moving_bundle

        return moving_bundle.migrate(container, where, wishes, words, bundle)
    from torpor.containers import moving_podman

    return moving_podman.migrate(container, where, wishes, words, volumes)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What *host* takes: *container*, with *words* of its engine's; what is said goes by *link*, data by *way*.

    What *stack* has entered lasts as long as the migration.
    """

    link: Link
    way: Metered
    container: Container
    host: str
    wishes: Wishes
    words: Words
    stack: ExitStack


class Move:
    """One in progress, whatever the engine is."""

    engine = ""

    def __init__(self, agreed: Agreed) -> None:
        self._link, self._way, self._container = agreed.link, agreed.way, agreed.container
        self._host, self._wishes, self._words, self._stack = agreed.host, agreed.wishes, agreed.words, agreed.stack
        self._rounds = Rounds(self._wishes.aim, self._wishes.tell, self._taken)
        self._root = read_status(Pid(self._container.pid)).ns_pids[-1]
        self._home = self._make_home()
        self._meeting = self._stack.enter_context(meeting.Meeting(meeting.of_dump(self._container.pid)))
        self._directories: dict[str, Directory] = {}
        self._mapped = Mapped()
        self._go_ns = 0
        #: What is in here lasts until the tree has been given up, or goes on.
        self._decided = ExitStack()

    # -- what engines differ in ------------------------------------------------------------------------------

    def _make_home(self) -> Path:
        """Where the rounds are, on which its checkpoint here depends."""
        home = homes.home() / f"{self._container.id[:12]}-{os.urandom(4).hex()}"
        return self._stack.enter_context(homes.held(home))

    @property
    def _rounds_home(self) -> Path:
        """Where its rounds are made."""
        return self._home

    def _before(self, images: Path, last: str) -> str:
        """Where the round *last* is, from the directory of the last *images*, which are about to be made."""
        return os.path.relpath(self._rounds_home / last, images)

    def _place_rounds(self, images: Path) -> None:
        """There are no more: they go where they are to be, for the last *images* in that directory."""

    def _tidy(self) -> None:
        """What is left of us, where the container runs on."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _look(self) -> Message:
        """How it is configured goes over; what its engine is told at a pre-checkpoint."""
        raise NotImplementedError

    def _checkpoint(self) -> None:
        """Have its engine checkpoint it."""
        raise NotImplementedError

    def _forget(self) -> None:
        """It runs there: nothing of it is to stay here."""
        raise NotImplementedError

    def _wake(self) -> None:
        """It goes on where it was, from its checkpoint; the errors of that."""
        raise NotImplementedError

    def reach(self, stage: str) -> None:
        """It has come so far: whoever moves as one with others waits for them.  MigrationError where one does not."""

    def _is_to_wake(self, why: str) -> bool:
        """It does not run there, or (LOST) nobody says so any more: whether it is to run on here."""
        return why != LOST

    @property
    def _kept(self) -> str:
        """Where its images are here afterwards."""
        return str(self._home)

    @property
    def _images_here(self) -> Path:
        """The last ones."""
        raise NotImplementedError

    @property
    def _by_hand(self) -> str:
        """What ``torpor restore`` would be told."""
        return self._container.label

    # -- all of it -------------------------------------------------------------------------------------------

    def run(self, name: str, made: Offer, began: float) -> Moved:
        """Move the container, which is to be called *name* there; *began* is when that was, by time.monotonic().

        TorporError or OSError: until "go" it runs on here whatever fails, which a note on the error says.
        """
        try:
            order = self._look()
            tracker = self._stack.enter_context(tracking.Tracker()) if can_track() else None
            pre_dump = self._pre_dumper(order)
            if tracker is not None and self._wishes.aim.most:
                with self._way.watched(self._rounds.look):
                    self._rounds.run(self._container.pid, self._rounds_home, tracker, self._images, {}, pre_dump)
            self._link.send(BEGIN)
            self._link.expect(WAITS, timeout_s=arriving.WAITS_WITHIN_S)
            self._send_all_files()
            self.reach(WAITING)
            stats = self._dump(tracker, pre_dump)
        except BaseException as error:
            self._tidy()
            if isinstance(error, LinkLostError):
                error = self._link.why(error)
            error.add_note(f"{self._container.label} runs on here")
            raise error from None
        try:
            runs = self._hear_end()
        except BaseException:
            self._rounds.settle(self._rounds_home)
            raise
        kept = self._kept if self._wishes.keep_source else ""
        is_to_stay = self._wishes.keep_source
        if self._wishes.keep_source or self._wishes.persist:
            self._rounds.settle(self._rounds_home)
        if self._wishes.persist:
            names = [f"round{made.number}" for made in self._rounds.done]
            kept = keeping.keep_if_possible(self._wishes.persist, self._images_here, self._home, names)
            is_to_stay = is_to_stay or not kept
        if not is_to_stay:
            self._forget()
            shutil.rmtree(self._home, ignore_errors=True)
        downtime_s = (self._go_ns - stats.watch.began_ns.get("freezing", self._go_ns)) / 1e9 + runs.number("us") / 1e6
        return Moved(
            self._host, name, runs.number("pid"), stats.n_processes, made.memory_bytes, self._way.n_sent, downtime_s,
            time.monotonic() - began, tuple(self._rounds.done), kept=kept,
        )  # fmt: skip

    # -- while it runs ---------------------------------------------------------------------------------------

    def _announce(self, *, is_last: bool) -> None:
        self._link.send(protocol.IMAGES, last=is_last, root=self._root)

    def _store(self, *, shared: bool = False) -> TarStore:
        return TarStore(
            self._way, f"the link to {self._host}", self._wishes.compress, spool=str(self._home), sums=False,
            shared=shared,
        )  # fmt: skip

    def _images(self) -> TarStore:
        self._announce(is_last=False)
        return self._store()

    def _taken(self) -> None:
        self._link.expect(protocol.TAKEN, timeout_s=arriving.WAITS_WITHIN_S)

    def _pre_dumper(self, order: Message) -> Callable[..., DumpStats]:
        told = meeting.told_of(order)

        def pre_dump(
            pid: int, place: Path, *, parent: str, tracker: tracking.Tracker, also: ImageStore, **words: Any
        ) -> DumpStats:
            options = replace(_options(told), parent=parent, tracker=tracker, also=also, **words)
            return engine.pre_dump(pid, place, replace(options, owns_directory=True, stats_directory=""))

        return pre_dump

    def _send_all_files(self) -> None:
        self._look_at_mappings()
        for part in self._directories:
            self._send_files(part)
        self._look_at_mappings()

    def _look_at_mappings(self) -> None:
        self._mapped.look(self._container.pid)

    def _send_files(self, part: str, mapped: Set[str] = frozenset()) -> None:
        self._link.send(FILES, part=part)
        point = {ROOT: "", SHM: SHM_POINT}.get(part, part.removeprefix(VOLUME)).rstrip("/") + "/"
        inside = frozenset(path.removeprefix(point) for path in mapped if path.startswith(point))
        began, before = time.monotonic(), self._way.n_sent
        n_sent = self._directories[part].send(self._way, inside)
        n_bytes, seconds = self._way.n_sent - before, time.monotonic() - began
        log.debug(f"{n_sent} files and directories of {part}: {n_bytes} bytes in {seconds:.2f} s")

    # -- when it is stopped ----------------------------------------------------------------------------------

    def _dump(self, tracker: tracking.Tracker | None, pre_dump: Callable[..., DumpStats]) -> DumpStats:
        """Its engine checkpoints it, and ours, asked by that, does so over the link."""
        stats = None
        with Asking(self._checkpoint, self.engine, self._meeting) as command:
            asking = command.asked()
            try:
                if self._rounds.last and tracker is not None:
                    # Both engines have taken their time since the last round, and since the files were sent: both are
                    # done once more, so that little is left for the time that it is stopped.
                    self._rounds.one_more(self._container.pid, self._rounds_home, tracker, self._images, {}, pre_dump)
                self._send_all_files()
                self.reach(ASKED)
                stats = self._answer(asking, tracker, pre_dump)
                asking.send(meeting.DONE)
            except BaseException as error:
                if stats is not None:
                    log.warn(f"{self.engine} has not heard that it has been moved: {error}")
                    return stats
                raise
            finally:
                command.has_ended_well = stats is not None
        return stats

    def _answer(self, asking: Link, tracker: tracking.Tracker | None, pre_dump: Callable[..., DumpStats]) -> DumpStats:
        def once_more() -> None:
            if has_more:
                assert tracker is not None
                tracker.forget_flags()
                self._rounds.one_more(self._container.pid, self._rounds_home, tracker, self._images, {}, pre_dump)
            if last:
                self._place_rounds(Path(images))
            self._announce(is_last=True)
            also.begin()

        order = asking.expect(meeting.DUMP)
        images = order.text("images")
        told = meeting.told_of(order)
        told["network"]["holds_all"] = True
        has_more = bool(self._rounds.last) and tracker is not None
        last = self._rounds.next if has_more else self._rounds.last
        parent = self._before(Path(images), last) if last else ""
        # The engine is told as well, so that it answers for a checkpoint that has been made, though we may have died.
        words = ((self._link.writer, encode(protocol.GO)), (asking.writer, encode(meeting.GIVEN)))
        with ExitStack() as decided, self._store(shared=True) as also:
            self._decided = decided
            options = replace(
                _options(told), made_by="torpor migrate", notify=meeting.teller(asking), commit=self._commit, also=also,
                last_words=words, tracker=tracker, parent=parent, stats_directory=order.text("stats"),
                once_more=once_more,
            )  # fmt: skip
            return engine.dump(self._container.pid, images, options)

    def _commit(self, _: str) -> None:
        """All of its images have gone, and it is stopped: the rest of its files, and whether it can be rebuilt."""
        self.reach(STOPPED)
        self._look_at_mappings()
        for part in self._directories:
            self._send_files(part, self._mapped.paths)
        self.reach(FILED)
        self._link.send(REBUILD)
        self._link.expect(protocol.READY, timeout_s=source.READY_WITHIN_S)
        self.reach(READY)
        self._go_ns = time.perf_counter_ns()

    # -- afterwards ------------------------------------------------------------------------------------------

    def _hear_end(self) -> Message:
        """That it runs there.  UnknownEndError where nobody says so; where it says that it does not, it does here."""
        label = self._container.label
        message = None
        try:
            message = self._link.expect(protocol.RUNS, arriving.NONE_RUNS, timeout_s=_RUNS_WITHIN_S)
            if message.name == arriving.NONE_RUNS:
                raise FailedThereError(f"{self._host}: {message.text('text')}")
            return message
        except FailedThereError as error:
            why = NONE if message is not None else FAILED
            if not self._is_to_wake(why):
                raise UnknownEndError(
                    f"{error.describe()}: {label} runs nowhere, and sleeps here, for others that it moved with run "
                    f"on {self._host}",
                    hint=f"torpor restore {self._by_hand}",
                ) from None
            self._restore_here(error)
            raise
        except MigrationError as error:
            if self._is_to_wake(LOST):
                self._restore_here(error)
                raise
            raise UnknownEndError(
                f"{label} does not run here any more, and whether it runs on {self._host} is not known: {error}",
                hint=f"look on {self._host}; if it does not run there: torpor restore {self._by_hand}",
            ) from None

    def _restore_here(self, error: BaseException) -> None:
        """It goes on where it was; *error* is told what came of that."""
        label = self._container.label
        try:
            self._wake()
            error.add_note(f"{label} runs on here")
            shutil.rmtree(self._home, ignore_errors=True)
        except TorporError as failure:
            error.add_note(f"{label} could not be restored here: {failure.describe()}")


def _options(told: dict[str, dict[str, Any]]) -> DumpOptions:
    # A server that accepts nothing for a while is no reason not to move it: what waits for it then is left behind.
    told["network"]["skip_in_flight"] = True
    return DumpOptions(policies=policies_of(told), cgroups=CgroupPolicy(**told["cgroups"]), **told["dump"])
