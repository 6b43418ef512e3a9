"""Memory of a stopped tree: what is mapped, which pages there are, and their contents."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torpor.engine.dump.session import DumpSession
from torpor.engine.options import NEVER
from torpor.images import messages as m
from torpor.images.store import ImageStore, store_one
from torpor.kernel.pagemap import PagemapScanner
from torpor.objects.files import fdtable
from torpor.objects.memory import space
from torpor.objects.memory.segments import DumpedPages
from torpor.objects.model import DumpProcess

#: The required fields of ``mm_entry`` that are not known as long as the task has not been asked.
_NUMBERS = (
    "mm_start_code", "mm_end_code", "mm_start_data", "mm_end_data", "mm_start_stack", "mm_start_brk", "mm_brk",
    "mm_arg_start", "mm_arg_end", "mm_env_start", "mm_env_end", "exe_file_id",
)  # fmt: skip


def read_mappings(session: DumpSession) -> None:
    """The mappings, with the executables and the files behind them."""
    for process in session.alive:
        process.mm.exe_file_id = fdtable.dump_executable(process, session.context)
        space.dump_maps(process, session.context)


def plan_snapshots(session: DumpSession) -> None:
    """What is going to be copied when the tree runs again, if that may be."""
    options = session.options
    # Who takes the pages elsewhere wants all of them before the images are written.
    is_here = options.pages is None and options.give is None
    # Where it is known what was written, little is copied.
    if options.leave_running and options.snapshot != NEVER and is_here and session.tracker is None:
        from torpor.engine.dump import snapshots

        session.snapshots = snapshots.plan(session)


def plan_holes(session: DumpSession) -> None:
    """What finds the holes of vast mappings, on a kernel that does not."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        if not PagemapScanner(file.fileno()).skips_holes():
            from torpor.objects.memory import sparse

            session.find_populated = sparse.find


def scan(session: DumpSession) -> None:
    """Look through the page tables."""
    for process in session.alive:
        if session.find_populated is not None:
            process.populated = session.find_populated(process, session.context)
        if session.snapshots is None or not session.snapshots.wants(process):
            session.scans[process.pid] = scanned = _scan(session, process)
            if session.is_pre_dump:
                # Opened now, and read when the process runs again: its pid may be of another one by then, the
                # descriptor is not.
                memory = space.open_memory(process.pid, scanned, is_shared=True, runs=True)
                session.memories[process.pid] = session.hold.enter_context(memory)


def _scan(session: DumpSession, process: DumpProcess) -> space.Scan:
    return space.scan(process, session.noted.get(process.pid), session.held.get(process.ns_pid, ()))


def _tell_mappings(session: DumpSession, also: ImageStore) -> None:
    """Whoever has memory ready for a restore before all is there is told what is mapped, and no more than that."""
    for process in session.alive:
        told = m.mm_entry()
        for name in _NUMBERS:
            setattr(told, name, 0)
        told.vmas.MergeFrom(process.mm.vmas)
        store_one(also, "MM", told, process.ns_pid)


def copy(session: DumpSession) -> None:
    """Write the private pages of all processes into the images, but those that a restore may be given later, and count.

    Of a process with a snapshot it is done later, by ``copy_snapshots``.
    """
    if session.is_pre_dump and session.options.also is not None:
        _tell_mappings(session, session.options.also)
    with session.stats.watch.span("memdump"), _sent_first(session):
        for process in session.alive:
            if session.snapshots is not None and session.snapshots.has(process):
                session.snapshots.halve(process)
                continue
            scanned = session.scans.get(process.pid) or _scan(session, process)
            memory, leave = session.memories.pop(process.pid, None), session.options.give is not None
            dumped = space.dump_contents(process, scanned, session.context, memory, leave=leave)
            session.stats.pages_lazy += dumped.n_left
            session.stats.pages_written += dumped.n_written
            session.stats.pages_scanned += dumped.n_scanned
            session.stats.pages_in_parent += dumped.n_held


def _sent_first(session: DumpSession) -> AbstractContextManager[object]:
    """Whoever rebuilds the tree elsewhere waits for its pages, and nobody for those that stay here (``make_up``)."""
    options = session.options
    if session.both is None or session.here is None or options.pages is not None or options.give is not None:
        return nullcontext()
    return session.both.second_alone(session.owed)


def make_up(session: DumpSession) -> None:
    """Write the pages that have been sent, and not written here: all of the tree is as it was then."""
    room, both = session.tracker.take_room() if session.tracker is not None else None, session.both
    for process, name in zip(session.alive, session.owed, strict=False):
        assert both is not None
        with room or nullcontext():
            writer = session.new.pages_writer_over(room.fileno(), name) if room is not None else None
        room = None
        space.copy_again(process, session.scans[process.pid], session.context, writer or both.make_up(name))


def watch_snapshots(session: DumpSession) -> None:
    """What the tree writes from now on takes memory as long as they are there."""
    if session.snapshots is not None:
        session.snapshots.watch()


def copy_snapshots(session: DumpSession) -> None:
    """The pages of which snapshots have been taken; from now on nothing is stopped."""
    session.new.sum_from_now_on()
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
