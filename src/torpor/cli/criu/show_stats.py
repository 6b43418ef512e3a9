"""``--display-stats``: what a dump or restore came to, on standard output."""

from __future__ import annotations

from torpor.cli.telling import tell
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.images.stores.opening import open_store


def show_dump(directory: str) -> None:
    """From ``stats-dump`` in *directory*."""
    dump = _load(directory, "dump").dump
    _show(
        "Displaying dump stats:",
        ("Freezing time", dump.freezing_time, "us"),
        ("Frozen time", dump.frozen_time, "us"),
        ("Memory dump time", dump.memdump_time, "us"),
        ("Memory write time", dump.memwrite_time, "us"),
        ("IRMAP resolve time", dump.irmap_resolve, "us"),
        ("Memory pages scanned", dump.pages_scanned, ""),
        ("Memory pages skipped from parent", dump.pages_skipped_parent, ""),
        ("Memory pages written", dump.pages_written, ""),
        ("Lazy memory pages", dump.pages_lazy, ""),
    )


def show_restore(directory: str) -> None:
    """From ``stats-restore`` in *directory*."""
    restore = _load(directory, "restore").restore
    _show(
        "Displaying restore stats:",
        ("Pages compared", restore.pages_compared, ""),
        ("Pages skipped COW", restore.pages_skipped_cow, ""),
        ("Pages restored", restore.pages_restored, ""),
        ("Restore time", restore.restore_time, "us"),
        ("Forking time", restore.forking_time, "us"),
    )


def _load(directory: str, which: str) -> m.stats_entry:
    with open_store(directory) as store:
        return load_one(store, kinds.STATS, which)


def _show(title: str, *rows: tuple[str, int, str]) -> None:
    lines = [title, *(f"{name}: {value}{' ' + unit if unit else ''}" for name, value, unit in rows)]
    tell("\n".join(lines))
