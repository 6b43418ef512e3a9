"""Restore, third part: what the processes have, memory and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torpor.engine.restore.session import RestoreSession
from torpor.objects.files import fdtable
from torpor.objects.memory import space
from torpor.objects.model import RestoreProcess


def each_alive(session: RestoreSession, steps: Sequence[Callable[[RestoreSession, RestoreProcess], None]]) -> None:
    """Each step for all living processes, before the next step."""
    for step in steps:
        for process in session.alive:
            step(session, process)


def early_memory(session: RestoreSession, process: RestoreProcess) -> None:
    """Mappings and contents, which children share by copy-on-write."""
    session.stats.pages_restored += space.make(process, session.vdso, session.context, session.channel)


def memory(session: RestoreSession) -> None:
    """Mappings and contents where there are none yet; protection, the vdso, the numbers in mm."""
    for process in session.iter_owners("vm_id"):
        early_memory(session, process)
        space.finish(process, session.context, session.channel)
    space.close_sources(session.context)


def announce(session: RestoreSession) -> None:
    """Whoever brings the pages that come later is told of all processes."""
    later = session.context.later
    if later is None:
        return
    for process in session.everyone:
        space.announce(process, later, session.context)


def directories(session: RestoreSession) -> None:
    """Root, working directory and umask."""
    for process in session.iter_owners("fs_id"):
        fdtable.restore_fs(process, session.context, session.channel, {session.channel.far_number})


def descriptors(session: RestoreSession) -> None:
    """Give each process its descriptor table; one that several share is filled once."""
    for process in session.iter_owners("files_id"):
        fdtable.restore_table(process, process.ids.files_id, session.context, session.channel)


def terminals(session: RestoreSession, process: RestoreProcess) -> None:
    """The controlling terminal of the session that *process* leads, where the tree has terminals at all."""
    if any(entry.HasField("tty") for entry in session.context.files.entries.values()):
        from torpor.objects.files import tty

        tty.restore_sessions(process, session.context)


def attach(session: RestoreSession) -> None:
    """The last step of each kind of file."""
    session.context.files.attach_all()
