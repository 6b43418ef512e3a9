"""``stats-dump`` and ``stats-restore``: how long what took, as Podman and runc read them.  Times in microseconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.store import ImageStore, store_one


@dataclass(slots=True)
class Stopwatch:
    """Adds up named spans."""

    us: dict[str, int] = field(default_factory=dict)
    #: When each began the first time, by time.perf_counter_ns().
    began_ns: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the time of the block under *name*."""
        start = time.perf_counter_ns()
        self.began_ns.setdefault(name, start)
        try:
            yield
        finally:
            self.us[name] = self.us.get(name, 0) + (time.perf_counter_ns() - start) // 1000


@dataclass(slots=True)
class DumpStats:
    """What a dump came to."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    pages_scanned: int = 0
    pages_written: int = 0
    shared_pages_written: int = 0
    pages_lazy: int = 0
    pages_in_parent: int = 0
    n_processes: int = 0

    def write(self, store: ImageStore) -> None:
        """Write ``stats-dump``: the times that the watch has, in microseconds, and the numbers of pages."""
        entry = m.stats_entry()
        dump, us = entry.dump, self.watch.us
        dump.freezing_time = us.get("freezing", 0)
        dump.frozen_time = us.get("frozen", 0)
        dump.memdump_time = us.get("memdump", 0)
        dump.memwrite_time = us.get("memwrite", 0)
        dump.pages_scanned = self.pages_scanned
        dump.pages_skipped_parent = self.pages_in_parent
        dump.pages_written = self.pages_written
        dump.irmap_resolve = 0
        dump.pages_lazy = self.pages_lazy
        dump.shpages_written = self.shared_pages_written
        store_one(store, "STATS", entry, "dump")


@dataclass(slots=True)
class RestoreStats:
    """What a restore came to."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    pages_restored: int = 0

    def write(self, store: ImageStore) -> None:
        """Write ``stats-restore``: the times that the watch has, in microseconds, and the number of pages."""
        entry = m.stats_entry()
        restore, us = entry.restore, self.watch.us
        restore.pages_compared = 0
        restore.pages_skipped_cow = 0
        restore.pages_restored = self.pages_restored
        restore.forking_time = us.get("forking", 0)
        restore.restore_time = us.get("restore", 0)
        store_one(store, "STATS", entry, "restore")
