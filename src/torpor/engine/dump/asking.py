"""What only the tasks themselves can say: one batch of questions a thread, run inside of it."""

from __future__ import annotations

from collections.abc import Iterable

from torpor.base.records import replace
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.dump.session import DumpSession
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import room, vdso
from torpor.objects.model import DumpProcess, DumpThread
from torpor.objects.task import landlock, registers, signals, stopped, user_dispatch
from torpor.objects.task.table import PROCESS_ASPECTS, ask_thread, look_at_thread, shape
from torpor.tracee.batch import Batch, RepeatedBatch
from torpor.tracee.borrow import BorrowedRunner, Injection, inject
from torpor.tracee.pipeline import Pipeline

if TYPE_CHECKING:
    from torpor.kernel.arch.regs import UserRegs


class Answered:
    """A thread that has been asked: its registers and extended state as they were, and what it has answered.

    What becomes of that in the images can wait until the tree runs.
    """

    __slots__ = ("_answers", "_questions", "_thread", "_xstate", "regs")

    def __init__(self, thread: DumpThread, regs: UserRegs, xstate: bytes, questions: Questions | None = None) -> None:
        self._thread, self.regs, self._xstate, self._questions = thread, regs, xstate, questions
        self._answers: bytes | bytearray = b""

    def take(self) -> None:
        """It has answered *questions*."""
        assert self._questions is not None
        self._answers = self._questions.batch.answers

    def write(self) -> None:
        """Fill in its image."""
        registers.dump(self._thread, self.regs, self._xstate)
        if self._questions is not None:
            self._questions.read(self._thread, self._answers)


class Questions:
    """To threads of one shape, one after the other."""

    def __init__(self, like: DumpThread) -> None:
        self._subject = replace(like)
        self.batch = RepeatedBatch()
        ask_thread(self._subject, self.batch)

    def read(self, thread: DumpThread, answers: bytes | bytearray) -> None:
        """What *thread* has answered is put into its image."""
        subject = self._subject
        subject.process, subject.thread, subject.ns_tid = thread.process, thread.thread, thread.ns_tid
        subject.status, subject.core = thread.status, thread.core
        self.batch.read(answers)


def ask(session: DumpSession) -> None:
    """The answers of all threads of all living processes."""
    known: dict[object, Questions] = {}
    for process in session.alive:
        stopped.ask_parent(process)
    for process in session.alive:
        _ask(session, process, known)


def _ask(session: DumpSession, process: DumpProcess, known: dict[object, Questions]) -> None:
    for thread in process.threads:
        user_dispatch.dump(thread)
    met = session.answered
    n_before = len(met)
    with (
        room.made(process, session.context),
        inject(
            process.tracee.leader, process.maps, process.leftovers, pending=process.pending, status=process.status
        ) as injection,
    ):
        _ask_threads(process, injection, met, known)
        with injection.borrow(process.tracee.leader) as runner:
            batch = Batch()
            look_at_thread(process.threads[0], runner.sigmask)
            ask_thread(process.threads[0], batch)
            looked = landlock.ask(process.threads[0], batch)
            for process_aspect in PROCESS_ASPECTS:
                if process_aspect.dump is not None:
                    process_aspect.dump(process, batch)
            mm_object.dump(process, batch)
            if process.pid in session.context.noticed.placed:
                from torpor.objects.memory import placement

                placement.ask(process, session.context.noticed, batch)
            for question in process.questions:
                question(batch)
            runner.run(batch)
            met.append(Answered(process.threads[0], runner.regs, runner.xstate))
            vdso.keep_offsets(process, runner, (answered.regs for answered in met[n_before:]))
            if session.snapshots is not None:
                session.snapshots.take(process, runner, injection.covered)
        is_free = looked is not None and not looked.errno
        _look_for_domains(process.threads[1:] if is_free else process.threads, injection)
    signals.dump_pending(process)


def _ask_threads(
    process: DumpProcess, injection: Injection, met: list[Answered], known: dict[object, Questions]
) -> None:
    """All threads but the leader, several at once."""
    borrowed: list[BorrowedRunner] = []
    try:
        with Pipeline() as pipeline:
            for thread in process.threads[1:]:
                part = pipeline.next_part()
                runner = injection.borrower(thread.thread, part)
                borrowed.append(runner)
                look_at_thread(thread, runner.sigmask)
                like = shape(thread)
                if like is None:
                    batch = Batch()
                    ask_thread(thread, batch)
                    pipeline.submit(runner, batch)
                    met.append(Answered(thread, runner.regs, runner.xstate))
                    continue
                questions = known.get((part, like)) or known.setdefault((part, like), Questions(thread))
                answered = Answered(thread, runner.regs, runner.xstate, questions)
                pipeline.submit(runner, questions.batch, answered.take)
                met.append(answered)
    finally:
        for runner in borrowed:
            runner.give_back()


def _look_for_domains(threads: Iterable[DumpThread], injection: Injection) -> None:
    """RefusedError for threads that Landlock confines."""
    for thread in threads:
        if landlock.is_suspect(thread):
            with injection.borrow(thread.thread) as runner:
                landlock.check(thread, runner)
