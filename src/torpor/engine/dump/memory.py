"""Memory of a stopped tree: what is mapped, which pages there are, and their contents."""

from __future__ import annotations

from torpor.engine.dump.session import DumpSession
from torpor.objects.files import fdtable
from torpor.objects.memory import space
from torpor.objects.memory.segments import DumpedPages


def read_mappings(session: DumpSession) -> None:
    """The mappings, with the executables and the files behind them."""
    for process in session.alive:
        process.mm.exe_file_id = fdtable.dump_executable(process, session.context)
        space.dump_maps(process, session.context)


def scan(session: DumpSession) -> None:
    """Look through the page tables."""
    for process in session.alive:
        session.scans[process.pid] = space.scan(process)


def copy(session: DumpSession) -> None:
    """The private pages."""
    with session.stats.watch.span("memdump"):
        for process in session.alive:
            dumped = space.dump_contents(process, session.scans[process.pid], session.context)
            session.stats.pages_written += dumped.n_written
            session.stats.pages_scanned += dumped.n_scanned


def copy_segments(session: DumpSession) -> None:
    """The contents of memory that is shared."""
    with session.stats.watch.span("memdump"):
        session.stats.shared_pages_written += space.dump_segments(session.context)


def settle(session: DumpSession) -> None:
    """Whoever takes the pages has all of them."""
    with session.stats.watch.span("memwrite"):
        session.context.part(DumpedPages).sink.settle()
