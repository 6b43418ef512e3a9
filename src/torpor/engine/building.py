"""Restore, third part: what the processes have, memory and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torpor.engine.session import RestoreSession
from torpor.objects.files import fdtable
from torpor.objects.memory import space
from torpor.objects.model import RestoreProcess


def each_alive(session: RestoreSession, steps: Sequence[Callable[[RestoreSession, RestoreProcess], None]]) -> None:
    """Each step for all living processes, before the next step."""
    for step in steps:
        for process in session.alive:
            step(session, process)


def memory(session: RestoreSession) -> None:
    """Mappings, contents, protection, the vdso, the numbers in mm."""
    for process in session.iter_owners("vm_id"):
        session.stats.pages_restored += space.restore(process, session.vdso, session.files, session.channel)


def directories(session: RestoreSession) -> None:
    """Root, working directory and umask."""
    for process in session.iter_owners("fs_id"):
        fdtable.restore_fs(process, session.files, session.channel, {session.channel.far_number})


def descriptors(session: RestoreSession) -> None:
    """Descriptor tables."""
    for process in session.iter_owners("files_id"):
        fdtable.restore_table(process, process.ids.files_id, session.files, session.channel)


def attach(session: RestoreSession) -> None:
    """The last step of each kind of file."""
    session.files.attach_all()
