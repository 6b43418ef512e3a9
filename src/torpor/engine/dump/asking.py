"""What only the tasks themselves can say: one batch of questions a thread, run inside of it."""

from __future__ import annotations

from torpor.base.typed import TYPE_CHECKING
from torpor.engine.dump.session import DumpSession
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import room
from torpor.objects.model import DumpProcess, DumpThread
from torpor.objects.task import landlock, registers, signals, user_dispatch
from torpor.objects.task.table import PROCESS_ASPECTS, THREAD_ASPECTS
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner, Injection, inject
from torpor.tracee.pipeline import Pipeline

if TYPE_CHECKING:
    from torpor.kernel.arch.regs import UserRegs

    #: A thread, with its registers and its extended state as they were.
    Met = tuple[DumpThread, UserRegs, bytes]


def ask(session: DumpSession) -> None:
    """The answers of all threads of all living processes."""
    for process in session.alive:
        _ask(session, process)


def _ask(session: DumpSession, process: DumpProcess) -> None:
    for thread in process.threads:
        user_dispatch.dump(thread)
    met: list[Met] = []
    with (
        room.made(process, session.context),
        inject(process.tracee.leader, process.maps, process.leftovers, pending=process.pending) as injection,
    ):
        _ask_threads(process, injection, met)
        with injection.borrow(process.tracee.leader) as runner:
            batch = _questions(process.threads[0], runner)
            for process_aspect in PROCESS_ASPECTS:
                if process_aspect.dump is not None:
                    process_aspect.dump(process, batch)
            mm_object.dump(process, batch)
            for question in process.questions:
                question(batch)
            runner.run(batch)
            met.append((process.threads[0], runner.regs, runner.xstate))
            if session.snapshots is not None:
                session.snapshots.take(process, runner, injection.covered)
        _look_for_domains(process, injection)
    signals.dump_pending(process)
    for thread, regs, xstate in met:
        registers.dump(thread, regs, xstate)


def _ask_threads(process: DumpProcess, injection: Injection, met: list[Met]) -> None:
    """All threads but the leader, several at once."""
    borrowed: list[BorrowedRunner] = []
    try:
        with Pipeline() as pipeline:
            for thread in process.threads[1:]:
                runner = injection.borrower(thread.thread, pipeline.next_part())
                borrowed.append(runner)
                pipeline.submit(runner, _questions(thread, runner))
                met.append((thread, runner.regs, runner.xstate))
    finally:
        for runner in borrowed:
            runner.give_back()


def _look_for_domains(process: DumpProcess, injection: Injection) -> None:
    """RefusedError for threads that Landlock confines."""
    for thread in process.threads:
        if landlock.is_suspect(thread):
            with injection.borrow(thread.thread) as runner:
                landlock.check(thread, runner)


def _questions(thread: DumpThread, runner: BorrowedRunner) -> Batch:
    batch = Batch()
    for aspect in THREAD_ASPECTS:
        if aspect.dump is not None:
            aspect.dump(thread, runner.sigmask, batch)
    return batch
