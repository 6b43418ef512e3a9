"""Children of ours that do not go on as if they were we; also sent where we cannot go, into user namespaces say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.kernel import signal
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import PR_SET_PDEATHSIG

_PATIENCE_S = 2.0


@contextmanager
def deaf() -> Iterator[Iterable[int]]:
    """Within the block no signal is for this thread; gives the mask before.

    Whoever forks does so in here, for until the child is where it leaves by _exit, whatever is raised, a handler of
    ours that raises has it go on as if it were we.  The child is deaf too, until it says otherwise (``hear``).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.ALL)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear(mask: Iterable[int]) -> None:
    """In a child: from now on signals do to it what they do to a program without handlers; *mask* is as ``deaf`` says.

    What is ignored stays so.
    """
    for number in signal.ALL:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def sent(work: Callable[[], None], end: int = signal.SIGKILL) -> Iterator[Pid]:
    """Within the block a child of ours does *work*; then it gets the signal *end*, unless it has ended, and is reaped.

    It is ``deaf``.  So *work* waits for *end* (sigwait(3)) if that is not SIGKILL.  OSError where there cannot be a
    child.
    """
    child = 0
    try:
        with deaf():
            child = os.fork()
            if not child:
                _do(work)
        yield Pid(child)
    finally:
        if child:
            os.kill(child, end)
            if end != signal.SIGKILL:
                _wait_a_while(Pid(child))
            os.waitpid(child, 0)


def _wait_a_while(child: Pid) -> None:
    """For its end, and no longer: somebody in a namespace that it has entered may have stopped it."""
    import select

    with OwnedFd(open_pidfd(child)) as pidfd:
        if not select.select([pidfd.fileno()], [], [], _PATIENCE_S)[0]:
            os.kill(child, signal.SIGKILL)


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        os._exit(0)


def go_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the calling child get *number* when its *parent* dies, and end at once if that has happened already.

    To be called once it is where it is to be: entering a user namespace undoes it (prctl(2)).  *parent* 0: one of
    another pid namespace, which cannot be asked for.
    """
    syscall("prctl(PR_SET_PDEATHSIG)", nr.prctl, PR_SET_PDEATHSIG, number)
    if parent and os.getppid() != parent:
        os._exit(0)


def keep(inner: int) -> None:
    """Wait for the child *inner* to end, end it when SIGTERM comes, and reap it.

    Nobody else does that in time where our death makes it somebody's who does not look: and a pid namespace that it was
    born into does not end before.  Signals are blocked (``sent``).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.sigwait((signal.SIGCHLD, signal.SIGTERM))
    with suppress(ProcessLookupError):
        os.kill(inner, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(inner, 0)
