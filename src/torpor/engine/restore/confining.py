"""Restore: threads of processes whose SELinux context we give them.

A process can change its context only as long as it has one thread, and once it has changed it, it may do no more than
its domain: choose no pid, and become nobody else.  So the main thread gets all that it is to have, its context last,
and then bears its threads, which have by birth what it has.  Their ids are chosen from outside.

Where a thread has other credentials than the main one, all of them got theirs in the domain, which allows it.  There
the context comes first, and credentials when all threads are there.
"""

from __future__ import annotations

from torpor.engine.restore.finishing import run_stages
from torpor.engine.restore.session import RestoreSession
from torpor.objects.model import RestoreProcess
from torpor.objects.task import lsm, posix_timers, registers
from torpor.objects.task.table import When, restore_process, restore_thread
from torpor.tracee.batch import Batch
from torpor.tracee.chooser import Chooser

_IN_PLACE = (When.BUILD, When.CREDENTIALS, When.SEALED)


def make_threads(session: RestoreSession) -> None:
    """Of all those whose threads come last."""
    processes = [process for process in session.alive if process.threads_last]
    if not processes:
        return
    reserved = {thread.ns_tid for thread in session.iter_threads()}
    with Chooser(session.area, reserved) as chooser:
        for process in processes:
            _make(session, process, chooser)


def _make(session: RestoreSession, process: RestoreProcess, chooser: Chooser) -> None:
    leader, *others = process.threads
    alike = all(thread.core.thread_core.creds == leader.core.thread_core.creds for thread in others)
    # Attributes are opened by BUILD, and written in the same batch.
    if alike:
        run_stages([leader], *_IN_PLACE)
    else:
        batch = Batch()
        restore_process(When.BUILD, process, batch)
        restore_thread(When.BUILD, leader, batch)
        lsm.restore(leader, batch)
        leader.runner.run(batch)
    for thread in others:
        thread.made = chooser.clone_thread(process.runner, thread.ns_tid)
        session.live.append(thread.runner)
        registers.restore_xstate(thread.runner.thread, thread.core)
    run_stages(others, *_IN_PLACE)
    if not alike:
        run_stages([leader], When.CREDENTIALS, When.SEALED)
    posix_timers.restore(process, Batch())
