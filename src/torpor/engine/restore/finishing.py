"""Restore, last part: who the tasks are, and letting them go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

from torpor.base import log
from torpor.base.errors import RestoreError, TorporError
from torpor.engine.restore.session import RestoreSession
from torpor.kernel import interrupts, ptrace, signal, vm
from torpor.kernel.arch import call, nr
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ
from torpor.objects import moment
from torpor.objects.arch import core as image
from torpor.objects.memory import mm as mm_object
from torpor.objects.memory import vmas
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.task import registers, signals, stopped, user_dispatch
from torpor.objects.task.table import When, restore_process, restore_thread
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.pipeline import Pipeline

_ALL_SIGNALS = (1 << 64) - 1


def early(session: RestoreSession) -> None:
    """Process aspects of the stage EARLY."""
    for process in session.alive:
        batch = Batch()
        restore_process(When.EARLY, process, batch)
        process.runner.run(batch)


def aspects(session: RestoreSession) -> None:
    """BUILD, CREDENTIALS and SEALED, one batch a thread; those of whom threads come last have been through them."""
    processes = (process for process in session.alive if not process.threads_last)
    run_stages(
        (thread for process in processes for thread in process.threads), When.BUILD, When.CREDENTIALS, When.SEALED
    )


def last(session: RestoreSession) -> None:
    """LAST, when every thread has been through the stages before."""
    run_stages(session.iter_threads(), When.LAST)


def run_stages(threads: Iterable[RestoreThread], *stages: When) -> None:
    """In each of *threads*."""
    with Pipeline() as pipeline:
        for thread in threads:
            batch = Batch()
            for when in stages:
                if thread.is_leader:
                    restore_process(when, thread.process, batch)
                restore_thread(when, thread, batch)
            pipeline.submit(thread.runner, batch)


def stop(session: RestoreSession) -> None:
    """Those that the images have stopped, or all of them, stop; they still work for us."""
    for process in session.alive:
        if stopped.is_stopped(process):
            stopped.restore(process)
        elif session.options.leave_stopped:
            stopped.restore(process, signal.SIGSTOP)


def clear(session: RestoreSession) -> None:
    """Start timers, close the channel in each process, and unmap our memory by the vdso's ``syscall``."""
    for process in session.alive:
        batch = Batch()
        moment.let_go_on(process.core.tc.timers, session.context)
        restore_process(When.ARMED, process, batch)
        process.runner.run(batch)
    for process in session.iter_owners("files_id"):
        batch = Batch()
        batch.call(nr.close, session.channel.far_number)
        process.runner.run(batch)
    for process in session.iter_owners("vm_id"):
        _unmap_scratch(session, process)


def _unmap_scratch(session: RestoreSession, process: RestoreProcess) -> None:
    at = _find_syscall(process)
    thread = process.runner.thread
    thread.set_sigmask(_ALL_SIGNALS)
    regs = image.for_last_call(process.core)
    if stub.call_at(thread, at, regs, nr.munmap, session.area, stub.AREA_SIZE) != 0:
        raise RestoreError(f"pid {process.ns_pid}: the restorer's memory cannot be unmapped")


def _find_syscall(process: RestoreProcess) -> int:
    """The address of a system call instruction: the vdso's, or, where a task has none, one in its own code."""
    entries = mm_object.mm_of(process).vmas
    code = [e for e in entries if e.prot & PROT_EXEC and e.prot & PROT_READ and vmas.is_made(e)]
    places = [(e.start, e.end - e.start) for e in code]
    for start, length in [process.vdso_place, *places] if process.vdso_place else places:
        try:
            at = call.find(vm.read(process.pid, start, length), call.SYSCALL)
        except OSError:
            continue  # longer than the file behind it
        if at >= 0:
            return start + at
    raise RestoreError(f"pid {process.ns_pid} has neither a vdso nor code that makes system calls")


def notify_ready(session: RestoreSession) -> None:
    """Tell that all is restored but nothing runs yet; no is a valid answer."""
    session.options.notify("post-restore", session.root.pid)


def guard(session: RestoreSession) -> None:
    """Signal masks and registers; the guardian, too, ends all if we die from here on."""
    for thread in session.iter_threads():
        thread.runner.thread.set_sigmask(signals.mask_of(thread.core))
        registers.restore_last(thread.runner.thread, thread.core)
        user_dispatch.restore(thread)
    assert session.guardian is not None
    session.guardian.watch([process.pid for process in session.alive])


def notify_resume(session: RestoreSession) -> None:
    """Tell that everyone is about to go on.  As with CRIU, a no is logged and no more."""
    try:
        session.options.notify("pre-resume", session.root.pid)
    except TorporError as error:
        log.warn(error.describe())


def commit(session: RestoreSession) -> None:
    """From now on our death lets everyone go.

    PTRACE_O_EXITKILL goes from one thread after the other.  Were it all that protects, our death between two of them
    would leave half a tree; the guardian is dismissed by one call.  It alone would not do either for long: with us the
    tracer goes (exit_ptrace), and everyone runs until the guardian has had its turn.  It stays, with that, for a caller
    who has yet to tell of the restore.

    With connections a caretaker takes the guardian's place, for which one message is both: not to end the tree any
    more, and to unlock the network.  So it does where anything would be taken back with the tree.

    A guardian that is dismissed is dead, though not gone: nobody waits for that before the tree runs
    (``RestoreSession.close`` does).
    """
    assert session.guardian is not None
    keeper = session.caretaker
    session.hold.enter_context(interrupts.held())
    stays = session.options.guarded is not None and session.root.ns_pid == 1
    if keeper is not None and not stays:
        session.guardian.dismiss()
    with keeper.ahead() if keeper is not None else nullcontext():
        for thread in session.iter_threads():
            ptrace.set_options(thread.runner.thread.tid, ptrace.PTRACE_O_TRACESYSGOOD)
        if keeper is not None:
            undone = [*session.taken_back, *(session.held.keys if session.held is not None else ())]
            keeper.add([], instead_of=[*session.ending, *undone])
    if keeper is None and not stays:
        session.guardian.dismiss()


def go(session: RestoreSession) -> None:
    """Everyone goes on; pages that nobody has touched yet may come."""
    if session.options.guarded is not None and session.root.ns_pid == 1 and session.guardian is not None:
        session.options.guarded(session.guardian)
        session.guardian = None
    if session.caretaker is not None:
        session.caretaker.release()
    for thread in session.iter_threads():
        thread.runner.thread.detach()
    if session.options.leave_stopped:
        from torpor.tracee.fate import await_stopped

        await_stopped(process.pid for process in session.alive)
    if session.context.later is not None:
        session.context.later.restored()
