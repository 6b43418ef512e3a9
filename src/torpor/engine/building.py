"""Restore, third part: what the processes have, memory and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torpor.engine.session import RestoreSession
from torpor.images.pagemap import load_pagemap
from torpor.kernel.arch import nr
from torpor.objects.files import fdtable
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import pages, vdso, vmas
from torpor.objects.model import RestoreProcess
from torpor.tracee.batch import Batch


def each_alive(session: RestoreSession, steps: Sequence[Callable[[RestoreSession, RestoreProcess], None]]) -> None:
    """Each step for all living processes, before the next step."""
    for step in steps:
        for process in session.alive:
            step(session, process)


def memory(session: RestoreSession) -> None:
    """Mappings, contents, protection, the vdso, the numbers in mm."""
    for process in session.alive:
        _build_memory(session, process)


def _build_memory(session: RestoreSession, process: RestoreProcess) -> None:
    channel, files, runner = session.channel, session.files, process.runner
    mm = mm_object.mm_of(process)
    made = [entry for entry in mm.vmas if vmas.is_made(entry)]
    file_ids = list(dict.fromkeys([entry.shmid for entry in made if entry.shmid] + [mm.exe_file_id]))
    taken = {channel.far_number}
    numbers = channel.give(runner, channel.far_number, [files.open(i) for i in file_ids], taken)
    remote = dict(zip(file_ids, numbers, strict=True))
    batch = Batch()
    for entry in made:
        vmas.restore_map(entry, remote[entry.shmid] if entry.shmid else None, batch)
        batch = session.flush(runner, batch)
    runner.run(batch)
    found = load_pagemap(session.store, process.ns_pid)
    reader = session.store.pages_reader(found.pages_name)
    try:
        session.stats.pages_restored += pages.restore(process.pid, found, reader)
    finally:
        reader.close()
    batch = Batch()
    for entry in made:
        vmas.restore_attributes(entry, batch)
        batch = session.flush(runner, batch)
    vdso.restore(vdso.entries_of(mm), session.vdso, batch)
    mm_object.restore(process, remote[mm.exe_file_id], batch)
    for number in numbers:
        batch.call(nr.close, number)
    runner.run(batch)


def directories(session: RestoreSession) -> None:
    """Root, working directory and umask."""
    for process in session.alive:
        fdtable.restore_fs(process, session.files, session.channel, {session.channel.far_number})


def descriptors(session: RestoreSession) -> None:
    """Descriptor tables."""
    for process in session.alive:
        fdtable.restore_table(process, process.ids.files_id, session.files, session.channel)


def attach(session: RestoreSession) -> None:
    """The last step of each kind of file."""
    session.files.attach_all()
