"""Restore, second part: puppets with the right pids, parents before children; threads once memory is in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torpor.engine.session import RestoreSession
from torpor.kernel.arch import nr
from torpor.objects.model import RestoreProcess
from torpor.objects.task import registers
from torpor.tracee import puppet as puppets
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner, kill_and_reap

_SIGCHLD = 17


def make_root(session: RestoreSession) -> None:
    """The stub, and the root puppet, which is its clone.  Every other puppet descends from the latter."""
    channel = session.channel
    seed = stub.spawn(session.area, keep_fds={channel.far_number: channel.far.fileno()})
    session.live.append(seed.runner)
    session.vdso = seed.vdso
    batch = Batch()
    batch.call(nr.close, 0)
    seed.runner.run(batch)
    flags = puppets.CLONE_PARENT | session.root_clone_flags
    _born(session, session.root, puppets.clone(seed.runner, flags=flags, exit_signal=0, set_tid=[session.root.ns_pid]))
    session.live.remove(seed.runner)
    kill_and_reap([seed.thread])


def make_children(
    session: RestoreSession, before: Sequence[Callable[[RestoreSession, RestoreProcess], None]] = ()
) -> None:
    """All other puppets; *before* is done in each living one just before its children are cloned from it."""
    for process in session.everyone:
        if not process.is_zombie:
            for step in before:
                step(session, process)
        for child in process.children:
            _born(
                session,
                child,
                puppets.clone(process.runner, flags=0, exit_signal=_SIGCHLD, set_tid=[child.ns_pid]),
            )


def make_threads(session: RestoreSession) -> None:
    """All threads but the main ones, and everyone's extended registers."""
    for process in session.alive:
        others = process.threads[1:]
        runners = puppets.clone_threads(process.runner, [thread.ns_tid for thread in others]) if others else []
        for thread, runner in zip(others, runners, strict=True):
            thread.made = runner
            session.live.append(runner)
        for thread in process.threads:
            registers.restore_xstate(thread.runner.thread, thread.core)


def _born(session: RestoreSession, process: RestoreProcess, runner: Runner) -> None:
    process.threads[0].made = runner
    session.live.append(runner)
