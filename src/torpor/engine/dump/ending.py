"""What becomes of the tree when all has been read: it goes on, stays stopped, or ends."""

from __future__ import annotations

from torpor.base import log
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.dump import writing
from torpor.engine.dump.session import DumpSession
from torpor.kernel import interrupts, signal
from torpor.kernel.sockets import Borrowed
from torpor.objects.undo import End

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.tracee.caretaker import Step


def give_pages(session: DumpSession) -> None:
    """Whoever rebuilds the tree elsewhere has the images by now, and asks for what has not been copied."""
    if session.options.give is None:
        return
    from torpor.engine.dump.left import Left

    writing.place(session)
    keys: list[int] = []

    def never_again() -> None:
        keys.extend(session.outside.caretaker.add(_signals(session, signal.SIGKILL)))
        for process in session.tree.processes:
            if process.threads:
                process.leader.end_with_us()

    with Left(session, never_again) as left:
        try:
            session.options.give(left)
        except BaseException:
            session.outside.caretaker.drop(keys)
            raise


def let_go(session: DumpSession) -> None:
    """As the options say."""
    if session.options.leave_running:
        session.context.undo.undo(End.GOES_ON)
        session.tree.release()
    elif session.options.leave_stopped:
        _leave_stopped(session)
    else:
        _kill(session)
    log.info(f"Dumped {len(session.processes)} processes, {session.stats.pages_written} pages")


def _kill(session: DumpSession) -> None:
    """There is no way back from here: whatever comes, signals or our death, all of the tree ends."""
    session.hold.enter_context(interrupts.held())
    session.new.is_last = True
    ends, words = _signals(session, signal.SIGKILL), session.options.last_words
    if words:
        from torpor.tracee.caretaker import send

        ends += [send(*word) for word in words]
    session.outside.commit(ends)
    session.tree.kill((lambda: _say(words)) if words else None)
    session.context.undo.clear()
    session.outside.killed()


def _say(words: Sequence[tuple[int, bytes]]) -> None:
    """The last words: nobody of the tree runs any more, though some are still dying."""
    for fd, word in words:
        try:
            with Borrowed(fd) as link:
                link.sendall(word)
        except OSError as error:
            # Nobody is there to hear it; whoever has it said waits for an answer, and will not get one.
            log.warn(f"the tree has ended, but that cannot be said: {error}")


def _leave_stopped(session: DumpSession) -> None:
    """All of it is stopped, if not by us then by the caretaker."""
    outside = session.outside
    session.hold.enter_context(interrupts.held())
    session.context.undo.undo(End.STOPPED)
    keys = outside.caretaker.add(_signals(session, signal.SIGSTOP))
    session.tree.leave_stopped()
    outside.caretaker.drop(keys)
    session.context.undo.clear()
    outside.wait_for_fate([(each.pid, each.pidfd.fileno()) for each in session.processes if each.pidfd is not None])


def dismiss(session: DumpSession) -> None:
    """Whoever would undo what we have changed has nothing to do any more."""
    session.outside.close()


def _signals(session: DumpSession, number: int) -> list[Step]:
    """What sends a signal to all."""
    from torpor.tracee.caretaker import signal_to

    return [signal_to(each.pidfd.fileno(), number) for each in session.processes if each.pidfd is not None]
