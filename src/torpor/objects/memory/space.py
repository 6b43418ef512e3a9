"""The address space of a task as a whole: which mappings it has, and their contents.

What is behind a mapping is in ``mapped``, its flags in ``vmas``, private contents in ``contents``, shared ones in
``segments``, the numbers beside them in ``mm``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field, replace
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import PE_LAZY, PE_PARENT, Extent, PageRun
from torpor.images.pages import Contents, PagesAlone, Range, divide, open_contents, runs_of
from torpor.images.store import ImageStore, PagesReader, PagesWriter
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_WRITE, Vma
from torpor.kernel.uapi.mman import MREMAP_FIXED, MREMAP_MAYMOVE
from torpor.kernel.uapi.prctl import PR_SET_THP_DISABLE
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.arch import core as image
from torpor.objects.files import memfd
from torpor.objects.memory import contents, shared, sysv, vdso, vmas
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_MEMFD, AREA_SOCKET
from torpor.objects.memory.inherited import Call, Inheritance, PageSource, differing, keep, overlay, run_all
from torpor.objects.memory.segments import DumpedPages, SegmentDump
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel
from torpor.tracee.remote import Runner
from torpor.tracee.stub import ParkedVdso

if TYPE_CHECKING:
    from torpor.objects.memory.later import Later

_Key = tuple[bool, int, int]
#: What is less is written as it comes.
_MUCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Scan:
    """The mappings with contents of their own, and what of them is to be copied."""

    private: list[Vma]
    found: contents.Found
    #: What is not copied, for somebody who reads it later while the process is still stopped.
    left: list[Range] = field(default_factory=list)
    #: What has not been written since the images before, and is in them.
    held: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PagesDumped:
    """What one address space came to, in pages."""

    n_scanned: int
    n_written: int
    #: Not copied, but left to be read later.
    n_left: int = 0
    n_held: int = 0


def dump_maps(process: DumpProcess, context: DumpContext) -> None:
    """The mappings and the files behind them; RefusedError for what cannot be carried."""
    entries = process.mm.vmas
    #: Of those without a name or file, by what they are; there may be thousands, alike but for their places.
    nameless: dict[object, m.vma_entry] = {}
    for vma in process.maps:
        is_nameless = not (vma.name or vma.inode or vma.device)
        what = (vma.prot, vma.shared, vma.flags, vma.page_size, vma.protection_key) if is_nameless else None
        if (known := nameless.get(what)) is not None:
            entry = entries.add()
            entry.MergeFrom(known)
            entry.start, entry.end = vma.start, vma.end
        else:
            entry = vmas.dump_one(process, vma, context)
            entries.append(entry)
            if is_nameless:
                nameless[what] = entry


def scan(process: DumpProcess, noted: contents.Noted | None = None, held: Sequence[Range] = ()) -> Scan:
    """Look through the page tables; before anything runs inside the task.

    *held*: the pages that the images before have; what has not been written since, by what is *noted*, stays there.
    """
    private = _private(process)
    found = contents.scan(process.pid, private, noted, process.populated)
    vdso.join_vvar(process.mm)
    vmas.add_guards(process.mm, found.guards)
    if not found.unwritten:
        return Scan(private, found)
    there, missing = divide(found.unwritten, held)
    return Scan(private, replace(found, ranges=sorted(found.ranges + missing) if missing else found.ranges), held=there)


def _private(process: DumpProcess) -> list[Vma]:
    which = map(vmas.has_contents, process.mm.vmas)
    return [vma for vma, wanted in zip(process.maps, which, strict=True) if wanted]


def open_memory(pid: Pid, scanned: Scan, *, is_shared: bool, runs: bool = False) -> contents.Memory:
    """The memory of *pid*, which has been *scanned*, to be copied now or, if it *runs* then, later."""
    unreadable = any(map(contents.is_unreadable, scanned.private))
    return contents.Memory(pid, gentle=is_shared, unreadable=unreadable, runs=runs)


def dump_contents(
    process: DumpProcess,
    scanned: Scan,
    context: DumpContext,
    memory: contents.Memory | None = None,
    *,
    leave: bool = False,
) -> PagesDumped:
    """Copy the private pages, from *memory* if that was opened before (it is closed); *leave* those that may come after
    a restore.
    """
    # Another task that lives on may have some of these pages by fork.
    is_shared = len(context.processes) > 1
    memory = memory or open_memory(process.pid, scanned, is_shared=is_shared)
    return _dump_contents(process, memory, scanned, context, leave=leave)


def copy_again(process: DumpProcess, scanned: Scan, context: DumpContext, writer: PagesWriter) -> None:
    """Write what ``dump_contents`` has copied, of a process that has been stopped ever since, by *writer*."""
    is_shared = len(context.processes) > 1
    with open_memory(process.pid, scanned, is_shared=is_shared) as memory, PagesAlone(writer) as stream:
        contents.copy(scanned.found.ranges, memory.read, stream)


def _dump_contents(
    process: DumpProcess,
    memory: contents.Memory,
    scanned: Scan,
    context: DumpContext,
    aside: contents.Aside | None = None,
    leave: bool = False,
) -> PagesDumped:
    """What *scanned* has found, of *memory*, which is closed, and from what was put *aside*."""
    ranges = scanned.found.ranges
    lazy = vmas.waiting(process.mm, (image.sp_of(thread.core) for thread in process.threads))
    if leave:
        scanned.left[:], ranges = divide(ranges, lazy)
    n_bytes = sum(end - start for start, end in ranges)
    left, held = _runs(scanned.left, PE_LAZY), _runs(scanned.held, PE_PARENT)
    elsewhere = sorted(left + held, key=lambda run: run.vaddr)
    sink = context.part(DumpedPages).sink

    def runs() -> list[PageRun]:
        return runs_of(ranges, elsewhere, lazy, PAGE_SIZE)

    with memory, sink.open(kinds.PAGEMAP, process.ns_pid, n_bytes, lazy, runs) as stream:
        contents.copy(ranges, memory.read if aside is None else aside.over(memory.read), stream, elsewhere)
    n_scanned = sum([vma.end - vma.start for vma in scanned.private]) // PAGE_SIZE
    n_left, n_held = (sum(run.n_pages for run in runs) for runs in (left, held))
    return PagesDumped(n_scanned, n_bytes // PAGE_SIZE, n_left, n_held)


def _runs(ranges: Iterable[Range], flags: int) -> list[PageRun]:
    return [PageRun(start, (end - start) // PAGE_SIZE, flags, PAGE_SIZE) for start, end in ranges]


class Halved:
    """An address space of which a snapshot has been taken: what that has not is put aside while the task is stopped.

    The rest can be read, by the snapshot's pid, when the task runs.
    """

    def __init__(self, process: DumpProcess) -> None:
        private = _private(process)
        vdso.join_vvar(process.mm)
        self._process = process
        self._inherited = [vma for vma in private if vmas.is_inherited(vma)]
        self._others = [vma for vma in private if not vmas.is_inherited(vma)]
        self._found = contents.scan(process.pid, self._others, populated=process.populated)
        unreadable = any(contents.is_unreadable(vma) for vma in self._others)
        with contents.Memory(process.pid, gentle=True, unreadable=unreadable) as memory:
            self._aside = contents.Aside(self._found.ranges, memory.read)

    def dump_contents(self, pid: Pid, context: DumpContext) -> PagesDumped:
        """Copy the private pages, those of the snapshot *pid* among them, and complete the mappings."""
        found = contents.scan(pid, self._inherited, populated=self._process.populated)
        vmas.add_guards(self._process.mm, sorted(found.guards + self._found.guards))
        both = contents.Found(sorted(found.ranges + self._found.ranges), [])
        scanned = Scan(self._inherited + self._others, both)
        memory = open_memory(pid, scanned, is_shared=True)
        return _dump_contents(self._process, memory, scanned, context, self._aside)


def dump_segments(context: DumpContext) -> int:
    """Copy the contents of all shared segments met so far; the number of pages."""
    return context.part(SegmentDump).dump_contents()


class Spaces:
    """The address spaces made so far in one restore, by ``vm_id``."""

    def __init__(self, context: RestoreContext) -> None:
        self.made: dict[int, Made] = {}


@dataclass(slots=True)
class Made:
    """An address space whose mappings and contents are there; ``raised``: the starts of those writable only for now."""

    entries: list[m.vma_entry]
    extents: list[Extent]
    contents_of: int
    vdso: vdso.Plan
    raised: set[int] = field(default_factory=set)
    source: PageSource | None = None
    #: What tells of those who wait for pages that come later, until that is somebody's.
    faults: OwnedFd | None = None
    lazy: list[Range] = field(default_factory=list)


def make(process: RestoreProcess, parked: ParkedVdso, context: RestoreContext, channel: Channel) -> int:
    """Mappings and contents, once for all that share the space, before any child is cloned; the number of pages."""
    spaces = context.part(Spaces).made
    if process.ids.vm_id in spaces:
        return 0
    lazy: list[Range] | None = None
    if context.later is not None:
        from torpor.objects.memory import later

        later.without_huge_pages(process)
        lazy = []
    there = _there(process, context)
    with open_contents(context.store, process.ns_pid, page_bytes=PAGE_SIZE, later=lazy, there=there) as kept:
        n_pages = _make(process, parked, context, channel, kept, lazy or ())
    spaces[process.ids.vm_id].lazy = lazy or []
    return n_pages


def _there(process: RestoreProcess, context: RestoreContext) -> list[Range]:
    """What of the memory that was laid out ahead stays the process's; none if others' is compared with its own."""
    ahead = context.parked
    if ahead is None or len(context.processes) > 1:
        return []
    entries = [entry for entry in mm_object.mm_of(process).vmas if vmas.is_made(entry)]
    return [(start, end) for start, end, _ in ahead.stays(keep(ahead.entries, entries, []).kept)]


def _make(
    process: RestoreProcess,
    parked: ParkedVdso,
    context: RestoreContext,
    channel: Channel,
    kept: Contents,
    lazy: Sequence[Range],
) -> int:
    spaces = context.part(Spaces).made
    mm, runner = mm_object.mm_of(process), process.runner
    vdso_plan = _plan_vdso(process, parked, kept, context)
    left_out = sorted((entry.start, entry.end) for entry in vdso.entries_of(mm))
    made = Made(
        [entry for entry in mm.vmas if vmas.is_made(entry)],
        _written(contents.without(kept.extents, left_out), mm.vmas),
        process.ns_pid,
        vdso_plan,
    )
    ahead = context.parked if process.cloned_from is None else None
    parent = spaces.get(process.cloned_from.ids.vm_id) if process.cloned_from is not None else None
    if ahead is not None:
        ahead.bring(runner)
        parent = Made(ahead.entries, ahead.there, process.ns_pid, vdso_plan, ahead.raised)
    calls: list[Call] = []
    inherited = keep(parent.entries if parent else (), made.entries, calls)
    run_all(runner, calls)
    ready = _of_template(process, inherited, context)
    _map(process, made, inherited, parent, context, channel, ready)
    calls = []
    reader = kept.reader
    if ahead is not None:
        from torpor.objects.memory.parked import still_missing

        extents = still_missing(ahead, inherited.kept, made.extents, lazy, calls)
    else:
        extents = _to_write(made, parent, inherited, reader, context.store, calls) if parent else made.extents
    if ready:
        from torpor.objects.memory.template import others

        extents = others(extents, (entry for entry in made.entries if entry.start in ready))
    run_all(runner, calls)
    if context.later is None and sum(end - start for start, end, _ in extents) >= _MUCH_BYTES:
        from torpor.objects.memory import bulk

        n_pages = bulk.write(runner, (each for each in inherited.made if each.start not in ready), extents, reader)
    else:
        n_pages = contents.restore(process.pid, extents, reader)
    spaces[process.ids.vm_id] = made
    return n_pages


def _of_template(process: RestoreProcess, inherited: Inheritance, context: RestoreContext) -> dict[int, int]:
    """The mappings, by their starts, that lie parked in the puppet with their contents, and where."""
    if context.parking is None:
        return {}
    places = context.parking.of(process)
    return {entry.start: places[entry.start] for entry in inherited.made if entry.start in places}


def _written(extents: list[Extent], entries: Iterable[m.vma_entry]) -> list[Extent]:
    """*extents*, but for zeroes where new memory has them: images may say a terabyte of them in a few bytes."""
    if not any(Contents.is_zero(extent) for extent in extents):
        return extents
    anonymous = sorted((entry.start, entry.end, 0) for entry in entries if entry.status & ANON_PRIVATE)
    return [
        (start, end, extent[2] + start - extent[0])
        for start, end, extent, place in overlay(extents, anonymous)
        if extent is not None and (place is None or not Contents.is_zero(extent))
    ]


def _plan_vdso(process: RestoreProcess, parked: ParkedVdso, kept: Contents, context: RestoreContext) -> vdso.Plan:
    sharing = [each for each in context.processes if each.ids.vm_id == process.ids.vm_id and not each.is_zombie]
    threads = [thread for each in sharing or [process] for thread in each.threads]
    offsets = next((each.mm.torpor_vdso_offsets for each in sharing if each.mm and each.mm.torpor_vdso_offsets), b"")
    return vdso.plan(mm_object.mm_of(process), parked, process.pid, kept.between, threads, offsets)


def _map(
    process: RestoreProcess,
    made: Made,
    inherited: Inheritance,
    parent: Made | None,
    context: RestoreContext,
    channel: Channel,
    parked: dict[int, int],
) -> None:
    """Make the mappings that are not inherited, or move them from where they are *parked*."""
    runner = process.runner
    filled = _with_contents(made)
    fresh = {entry.start for entry in inherited.made}
    attached = sysv.attach(runner, inherited.made)
    batch, remote = _give_files(process, inherited.made, context, channel)
    for index, entry in enumerate(made.entries):
        raised = entry.start in filled and not entry.prot & PROT_WRITE
        if entry.start in attached:
            continue
        if entry.start in parked:
            length = entry.end - entry.start
            batch.call(nr.mremap, parked[entry.start], length, length, MREMAP_MAYMOVE | MREMAP_FIXED, entry.start)
            # As all that is parked it can be written to, whether it has contents or not.
            raised = not entry.prot & PROT_WRITE
        elif entry.start in fresh:
            key = _key(entry)
            vmas.restore_map(entry, None if key is None else remote[key], raised, batch)
        elif parent is not None and entry.start in parent.raised:
            raised = True
        elif raised:
            batch.call(nr.mprotect, entry.start, entry.end - entry.start, entry.prot | PROT_WRITE)
        if raised:
            made.raised.add(entry.start)
        if not index & 0xFF:
            batch = runner.flush(batch)
    for number in remote.values():
        batch.call(nr.close, number)
    runner.run(batch)


def _with_contents(made: Made) -> set[int]:
    """The starts of the mappings into which something will be written."""
    found: set[int] = set()
    extents = iter(made.extents)
    extent = next(extents, None)
    for entry in made.entries:
        start, end = entry.start, entry.end
        while extent is not None and extent[1] <= start:
            extent = next(extents, None)
        if extent is None:
            break
        if extent[0] < end:
            found.add(start)
    return found


def _to_write(
    made: Made, parent: Made, inherited: Inheritance, reader: PagesReader, store: ImageStore, calls: list[Call]
) -> list[Extent]:
    if parent.source is None:
        later: list[Range] | None = [] if parent.lazy else None
        kept = open_contents(store, parent.contents_of, page_bytes=PAGE_SIZE, later=later)
        parent.source = PageSource(kept.reader)
    return differing(parent.extents, made.extents, inherited.kept, (parent.source, PageSource(reader)), calls)


def finish(process: RestoreProcess, context: RestoreContext, channel: Channel) -> None:
    """Protection and attributes, the vdso, the numbers in mm: what a clone must not inherit, or could not change."""
    mm, runner = mm_object.mm_of(process), process.runner
    made = context.part(Spaces).made[process.ids.vm_id]
    vdso.write(made.vdso, process.pid)
    if mm.aios:
        _restore_rings(runner, mm, channel)
    executable = context.files.open(mm.exe_file_id)
    batch = Batch()
    (exe,) = channel.give(batch, [executable], {channel.far_number})
    if context.parking is not None:
        # Children have been cloned: what is parked here still is others'.
        batch.call(nr.munmap, context.parking.start, context.parking.end - context.parking.start)
    for index, entry in enumerate(made.entries):
        vmas.restore_attributes(entry, entry.start in made.raised, batch)
        if not index & 0x1F:
            batch = runner.flush(batch)
    vmas.restore_guards(mm, batch)
    vmas.restore_seals(mm, batch)
    vdso.restore(made.vdso, batch)
    process.vdso_place = made.vdso.place
    mm_object.restore(process, exe, batch)
    batch.call(nr.close, exe)
    runner.run(batch)
    if made.vdso.copy is not None:
        batch = Batch()
        vdso.write_copy(made.vdso, process.pid, batch)
        runner.run(batch)
    if context.later is not None:
        _finish_later(process, made, context)


def _finish_later(process: RestoreProcess, made: Made, context: RestoreContext) -> None:
    """Have whoever touches what is missing wait for it; from here on huge pages may be made."""
    from torpor.objects.memory import later

    places = later.areas(made.entries, made.lazy)
    if places:
        made.faults = later.register(process, places, context)
    if not mm_object.mm_of(process).thp_disabled:
        batch = Batch()
        batch.call(nr.prctl, PR_SET_THP_DISABLE, 0, 0, 0, 0)
        process.runner.run(batch)


def announce(process: RestoreProcess, later: Later, context: RestoreContext) -> None:
    """Hand what tells of the missing pages of *process* to whoever brings them."""
    made = None if process.is_zombie else context.part(Spaces).made[process.ids.vm_id]
    if made is None or made.faults is None or made.contents_of != process.ns_pid:
        later.nothing(process.ns_pid)
        return
    faults, made.faults = made.faults, None
    later.begin(process.ns_pid, faults)


def close_sources(context: RestoreContext) -> None:
    """All spaces have their contents: nothing is compared with images any more."""
    for made in context.part(Spaces).made.values():
        if made.source is not None:
            made.source.close()


def _restore_rings(runner: Runner, mm: m.mm_entry, channel: Channel) -> None:
    with OwnedFd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) as null:
        (number,) = channel.lend(runner, [null.fileno()])
    from torpor.objects.memory import aio

    aio.restore(runner, mm, number)
    batch = Batch()
    batch.call(nr.close, number)
    runner.run(batch)


def _key(entry: m.vma_entry) -> _Key | None:
    """What names the descriptor that is mapped: is it a segment, its id, how it must be open."""
    if not entry.shmid or sysv.is_attached(entry):
        return None
    return shared.is_segment(entry), entry.shmid, entry.fdflags & os.O_ACCMODE


def _open(key: _Key, entry: m.vma_entry, context: RestoreContext) -> int:
    """What *entry* maps, as a descriptor of ours, borrowed."""
    if key[0]:
        return shared.open_segment(entry, context)
    if entry.status & AREA_MEMFD and key[2] == os.O_RDWR:
        return memfd.open_inode(context.files.entry(entry.shmid).memfd.inode_id, context)
    fd = context.files.open(entry.shmid)
    # In CRIU's images the entry of a file may be open in another way than the mapping needs.
    if entry.status & AREA_SOCKET or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == key[2]:
        return fd
    return context.files.shared(key, lambda: os.open(f"/proc/self/fd/{fd}", key[2] | os.O_CLOEXEC))


def _give_files(
    process: RestoreProcess, entries: list[m.vma_entry], context: RestoreContext, channel: Channel
) -> tuple[Batch, dict[_Key, int]]:
    """A batch that puts what is mapped into the puppet, or the last of it; the numbers there."""
    ours: dict[_Key, int] = {}
    for entry in entries:
        key = _key(entry)
        if key is not None and key not in ours:
            ours[key] = _open(key, entry, context)
        if key is not None and entry.prot & PROT_EXEC and os.fstatvfs(ours[key]).f_flag & os.ST_NOEXEC:
            name = os.readlink(f"/proc/self/fd/{ours[key]}")
            raise RestoreError(
                f"{name} is mapped as code by pid {process.ns_pid}, and lies on a noexec mount",
                hint="mount -o remount,exec",
            )
    batch, fds, taken = Batch(), list(ours.values()), {channel.far_number}
    numbers = channel.give(batch, fds[: channel.MOST], taken)
    for start in range(channel.MOST, len(fds), channel.MOST):
        process.runner.run(batch)
        batch = Batch()
        numbers += channel.give(batch, fds[start : start + channel.MOST], taken)
    return batch, dict(zip(ours, numbers, strict=True))
