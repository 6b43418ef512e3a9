"""Memory that goes while the tree runs: all of it first, then, round after round, what has been written since.

A round is a pre-dump with a tracker of our own: the tree is stopped for as long as it takes to look through its page
tables.  When the rest would take no longer than the downtime that is aimed at, or more rounds would not make it less,
the tree is stopped for good.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torpor
from torpor.base.errors import MigrationError
from torpor.base.fds import OwnedFd
from torpor.engine.sets import settling
from torpor.images.errors import ImageError, StoreError
from torpor.images.pages import MAX_PARENTS
from torpor.images.store import ImageStore
from torpor.kernel.vm import PAGE_SIZE

if TYPE_CHECKING:
    from torpor.engine.stats import DumpStats
    from torpor.objects.memory.tracking import Tracker

#: The destination takes no more sets than that, one behind the other.
_MOST = MAX_PARENTS - 8
CANCEL, STOP, POST_COPY = "cancel", "stop", "post-copy"
#: What stopping, reading all else, rebuilding it and letting it go take, whatever has been written.
_FLOOR_S = 0.03
#: A round that has not become smaller than this part of the one before will not, the next time either.
_NO_BETTER = 0.9
#: What takes this part of the downtime aimed at is worth another round, if each still leaves so much less than the one
#: before: whoever aims at a time is not to get all of it.
_LITTLE, _MUCH_BETTER = 0.1, 0.75
#: The kernel begins to write to the disk by itself when there is much to be written: in the midst of the small rounds,
#: on a processor that they need.  A file of so many bytes is written by the round that makes it.
_MUCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Aim:
    """When the rounds end: the rest would take ``downtime_s``; there have been ``most``; ``timeout_s`` is over (0:
    never), and then the migration is given up (``on_timeout`` CANCEL), or the rest is sent with all stopped (STOP), or
    when it runs there (POST_COPY).  Who would rather give up is not stopped for longer than is aimed at: until time is
    up there are more rounds, whatever they come to and however many there have been.
    """

    downtime_s: float = 0.1
    most: int = 8
    timeout_s: float = 0.0
    on_timeout: str = STOP


@dataclass(frozen=True, slots=True)
class Round:
    """What one came to.  ``rest_s``: what is left would take so long, if it is written as fast as until now."""

    number: int
    n_bytes: int
    seconds: float
    stopped_s: float
    dirty_bytes_s: float
    rest_s: float


class Rounds:
    """The rounds of one migration; what each came to is told to *tell*, too; *taken* is called when one has gone."""

    def __init__(self, aim: Aim, tell: Callable[[Round], None], taken: Callable[[], None] = lambda: None) -> None:
        self.done: list[Round] = []
        #: The name of the last one's directory.
        self.last = ""
        self._aim, self._tell, self._taken = aim, tell, taken
        self.is_timed_out = False
        self._began = time.monotonic()

    def run(
        self,
        pid: int,
        home: Path,
        tracker: Tracker,
        way: Callable[[], ImageStore],
        told: Mapping[str, Any],
        pre_dump: Callable[..., DumpStats] | None = None,
    ) -> str:
        """Go through them; their images are below *home*, and each goes by a store that *way* opens.

        The name of the last one's directory there; "" where there was none.  The errors of a dump, MigrationError where
        time is up.  *pre_dump* makes one.
        """
        while self._is_another_wanted():
            self.one_more(pid, home, tracker, way, told, pre_dump)
        return self.last

    def one_more(
        self,
        pid: int,
        home: Path,
        tracker: Tracker,
        way: Callable[[], ImageStore],
        told: Mapping[str, Any],
        pre_dump: Callable[..., DumpStats] | None = None,
    ) -> None:
        """One, whether it is worth it or not."""
        began = time.monotonic()
        name = self.next
        # The way to the round before begins in it.
        (home / name).mkdir(mode=0o700)
        with way() as store:
            stats = (pre_dump or torpor.pre_dump)(
                pid, home / name, parent=f"../{self.last}" if self.last else "", tracker=tracker, also=store,
                made_by="torpor migrate", unsettled=True, **told,
            )  # fmt: skip
        _write_through(home / name)
        self._taken()
        self.last = name
        us = stats.watch.us
        self._note(
            (stats.pages_written + stats.shared_pages_written) * PAGE_SIZE, time.monotonic() - began,
            (us.get("freezing", 0) + us.get("frozen", 0)) / 1e6,
        )  # fmt: skip

    @property
    def next(self) -> str:
        """The name of the directory of the one that is still to come."""
        return f"round{len(self.done) + 1}"

    def settle(self, home: Path) -> None:
        """They are to last: have their images below *home* on the disk, with their sums, as far as that can be.

        As a rule they are removed soon, and nobody waits for a disk.
        """
        for each in self.done:
            with (
                suppress(OSError, ImageError),
                OwnedFd(os.open(home / f"round{each.number}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd,
            ):
                settling.complete(fd.fileno())

    @property
    def is_near(self) -> bool:
        """Whether the rest would go in the downtime that is aimed at."""
        return bool(self.done) and self.done[-1].rest_s <= self._aim.downtime_s

    def _note(self, n_bytes: int, seconds: float, stopped_s: float) -> None:
        before = self.done[-1] if self.done else None
        # What a round finds has been written while the one before was under way.
        rate = n_bytes / before.seconds if before is not None else 0.0
        speed = max(each.n_bytes / each.seconds for each in (*self.done, Round(0, n_bytes, seconds, 0, 0, 0)))
        rest_s = _FLOOR_S + (rate * seconds / speed if before is not None and speed else n_bytes / max(speed, 1))
        self.done.append(Round(len(self.done) + 1, n_bytes, seconds, stopped_s, rate, rest_s))
        self._tell(self.done[-1])

    def look(self) -> None:
        """MigrationError where time is up, and the migration is to be given up then."""
        if self._is_given_up and self._is_time_up:
            raise self._too_slow()

    @property
    def _is_given_up(self) -> bool:
        return bool(self._aim.timeout_s) and self._aim.on_timeout == CANCEL

    @property
    def _is_time_up(self) -> bool:
        return bool(self._aim.timeout_s) and time.monotonic() - self._began > self._aim.timeout_s

    def _too_slow(self) -> MigrationError:
        return MigrationError(
            f"its memory has not gone in {time.monotonic() - self._began:.0f} s ({len(self.done)} rounds), or has been "
            "written faster than it went: it runs on here",
            hint="--on-timeout stop sends the rest with it stopped, --on-timeout post-copy when it runs there",
        )

    def _is_another_wanted(self) -> bool:
        self.look()
        n_rounds = len(self.done)
        if n_rounds >= (_MOST if self._is_given_up else self._aim.most):
            if self._is_given_up and not self.is_near:
                raise self._too_slow()
            return False
        if self._is_time_up:
            self.is_timed_out = True
            return False
        if n_rounds < 2:
            return True
        before, last = self.done[-2:]
        if self.is_near:
            is_little = last.rest_s - _FLOOR_S <= self._aim.downtime_s * _LITTLE
            return not is_little and last.n_bytes < before.n_bytes * _MUCH_BETTER
        return n_rounds < 3 or last.n_bytes < before.n_bytes * _NO_BETTER or self._is_given_up


def _write_through(directory: Path) -> None:
    for path in directory.iterdir():
        if path.lstat().st_size <= _MUCH_BYTES:
            continue
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
            try:
                os.fdatasync(fd.fileno())
            except OSError as error:  # as a full disk is seen, where room is given late
                hint = "free some space, or name another place (TORPOR_STATE)"
                raise StoreError(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
