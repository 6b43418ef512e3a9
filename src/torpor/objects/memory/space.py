"""The address space of a task as a whole: which mappings it has, and their contents.

What is behind a mapping is in ``mapped``, its flags in ``vmas``, private contents in ``pages``, shared ones in
``segments``, the numbers beside them in ``mm``.
"""

from __future__ import annotations

import fcntl
import os

from torpor.base.records import dataclass
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import load_pagemap, store_pagemap
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import Vma
from torpor.objects.files.model import FileDump, FileRestore
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import pages, shared, vdso, vmas
from torpor.objects.memory.segments import SegmentDump
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel
from torpor.tracee.stub import ParkedVdso

_Key = tuple[bool, int, int]


@dataclass(frozen=True, slots=True)
class Scan:
    """The mappings with contents of their own, and what of them is to be copied."""

    private: list[Vma]
    found: pages.Found


def dump_maps(process: DumpProcess, session: FileDump) -> None:
    """The mappings and the files behind them; RefusedError for what cannot be carried."""
    process.mm.vmas.extend(vmas.dump_one(process, vma, session) for vma in process.maps)


def scan(process: DumpProcess) -> Scan:
    """Look through the page tables; before anything runs inside the task."""
    private = [vma for vma, entry in zip(process.maps, process.mm.vmas, strict=True) if vmas.has_contents(entry)]
    with open(f"/proc/{process.pid}/pagemap", "rb", buffering=0) as stream:
        found = pages.scan(stream.fileno(), private)
    vmas.add_guards(process.mm, found.guards)
    return Scan(private, found)


def dump_contents(process: DumpProcess, scanned: Scan, session: FileDump) -> pages.PagesDumped:
    """Copy the private pages."""
    pages_id = session.part(SegmentDump).new_pages_id()
    writer = session.store.pages_writer(kinds.PAGES.file_name(pages_id))
    try:
        runs = pages.dump(process.pid, scanned.private, scanned.found.ranges, writer)
    finally:
        writer.close()
    store_pagemap(session.store, process.ns_pid, pages_id, runs)
    n_scanned = sum(vma.length for vma in scanned.private) // 4096
    return pages.PagesDumped(n_scanned, sum(run.n_pages for run in runs))


def dump_segments(session: FileDump) -> int:
    """Copy the contents of all shared segments met so far; the number of pages."""
    return session.part(SegmentDump).dump_contents()


def restore(process: RestoreProcess, parked: ParkedVdso, files: FileRestore, channel: Channel) -> int:
    """Mappings, contents, protection, the vdso, the numbers in mm; the number of pages written."""
    mm, runner = mm_object.mm_of(process), process.runner
    made = [entry for entry in mm.vmas if vmas.is_made(entry)]
    remote = _give_files(process, made, files, channel)
    batch = Batch()
    for entry in made:
        key = _key(entry)
        vmas.restore_map(entry, None if key is None else remote[key], batch)
        batch = runner.flush(batch)
    runner.run(batch)
    n_pages = _write_contents(process, files)
    batch = Batch()
    for entry in made:
        vmas.restore_attributes(entry, batch)
        batch = runner.flush(batch)
    vmas.restore_guards(mm, batch)
    vmas.restore_seals(mm, batch)
    vdso.restore(vdso.entries_of(mm), parked, batch)
    mm_object.restore(process, remote[None], batch)
    for number in remote.values():
        batch.call(nr.close, number)
        batch = runner.flush(batch)
    runner.run(batch)
    return n_pages


def _key(entry: m.vma_entry) -> _Key | None:
    """What names the descriptor that is mapped: is it a segment, its id, how it must be open."""
    if not entry.shmid:
        return None
    return shared.is_segment(entry), entry.shmid, entry.fdflags & os.O_ACCMODE


def _open(key: _Key, entry: m.vma_entry, files: FileRestore) -> int:
    """What *entry* maps, as a descriptor of ours, borrowed."""
    if key[0]:
        return shared.open_segment(entry, files)
    fd = files.open(entry.shmid)
    # In CRIU's images the entry of a file may be open in another way than the mapping needs.
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == key[2]:
        return fd
    return files.shared(key, lambda: os.open(f"/proc/self/fd/{fd}", key[2] | os.O_CLOEXEC))


def _give_files(
    process: RestoreProcess, made: list[m.vma_entry], files: FileRestore, channel: Channel
) -> dict[_Key | None, int]:
    """Put what is mapped, and the executable (under None), into the puppet; their numbers there."""
    ours: dict[_Key | None, int] = {}
    for entry in made:
        key = _key(entry)
        if key is not None and key not in ours:
            ours[key] = _open(key, entry, files)
    ours[None] = files.open(mm_object.mm_of(process).exe_file_id)
    taken = {channel.far_number}
    numbers = channel.give(process.runner, channel.far_number, list(ours.values()), taken)
    return dict(zip(ours, numbers, strict=True))


def _write_contents(process: RestoreProcess, files: FileRestore) -> int:
    found = load_pagemap(files.store, process.ns_pid)
    reader = files.store.pages_reader(found.pages_name)
    try:
        left_out = [(entry.start, entry.end) for entry in vdso.entries_of(mm_object.mm_of(process))]
        return pages.restore(process.pid, found, reader, left_out)
    finally:
        reader.close()
