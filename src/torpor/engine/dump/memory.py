"""Memory of a stopped tree: what is mapped, which pages there are, and their contents."""

from __future__ import annotations

from torpor.engine.dump.session import DumpSession
from torpor.engine.options import NEVER
from torpor.objects.files import fdtable
from torpor.objects.memory import space
from torpor.objects.memory.segments import DumpedPages


def read_mappings(session: DumpSession) -> None:
    """The mappings, with the executables and the files behind them."""
    for process in session.alive:
        process.mm.exe_file_id = fdtable.dump_executable(process, session.context)
        space.dump_maps(process, session.context)


def plan_snapshots(session: DumpSession) -> None:
    """What is going to be copied when the tree runs again, if that may be."""
    options = session.options
    # Who takes the pages elsewhere wants all of them before the images are written.
    if options.leave_running and options.snapshot != NEVER and options.pages is None and options.give is None:
        from torpor.engine.dump import snapshots

        session.snapshots = snapshots.plan(session)


def scan(session: DumpSession) -> None:
    """Look through the page tables."""
    for process in session.alive:
        if session.snapshots is None or not session.snapshots.wants(process):
            session.scans[process.pid] = space.scan(process)


def copy(session: DumpSession) -> None:
    """The private pages."""
    with session.stats.watch.span("memdump"):
        for process in session.alive:
            if session.snapshots is not None and session.snapshots.has(process):
                session.snapshots.halve(process)
                continue
            found = session.scans.get(process.pid) or space.scan(process)
            leave = session.options.give is not None
            dumped = space.dump_contents(process, found, session.context, leave=leave)
            session.stats.pages_lazy += dumped.n_left
            session.stats.pages_written += dumped.n_written
            session.stats.pages_scanned += dumped.n_scanned


def copy_snapshots(session: DumpSession) -> None:
    """The pages of which snapshots have been taken."""
    if session.snapshots is not None:
        with session.stats.watch.span("memdump"):
            session.snapshots.copy()


def end_snapshots(session: DumpSession) -> None:
    """Nothing of any snapshot is left."""
    if session.snapshots is not None:
        session.snapshots.end()


def copy_segments(session: DumpSession) -> None:
    """The contents of memory that is shared."""
    with session.stats.watch.span("memdump"):
        session.stats.shared_pages_written += space.dump_segments(session.context)


def settle(session: DumpSession) -> None:
    """Whoever takes the pages has all of them."""
    with session.stats.watch.span("memwrite"):
        session.context.part(DumpedPages).sink.settle()
