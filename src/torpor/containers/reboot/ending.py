"""At shutdown, when all is saved that can be: jobs that run still and are deaf to systemd's SIGTERM are ended.

Nothing that would have ended by itself is: the first process of a pid namespace does not get a signal that it has no
handler for, and systemd would wait for it as long as a unit may take to stop (90 s by default, systemd.kill(5)).  Who
has a handler is left to systemd, like any service.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from torpor.base.errors import JobError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine import jobs
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.task import read_tree

#: As `torpor kill` waits, and Podman's stop.
GRACE_S = 10.0


def end_deaf(tell: Callable[[str], None], grace_s: float = GRACE_S) -> None:
    """End them; *tell* is told each.  What is below them gets SIGTERM, and *grace_s* for all of it to end by itself."""
    deaf = [job for job in jobs.list_jobs() if job.status == jobs.RUNNING and not jobs.hears(job, signal.SIGTERM)]
    deaf = [job for job in deaf if not jobs.locks.holder(job.name)]
    _end_below(deaf, grace_s)
    for job in deaf:
        # It may have ended with what was below it.
        with suppress(JobError):
            jobs.kill(job, signal.SIGKILL)
        tell(f"job:{job.name}: ended, for SIGTERM does not reach the first process of a job without a handler")


def _end_below(deaf: list[jobs.Job], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    poll = select.poll()
    with ExitStack() as stack:
        below = {stack.enter_context(OwnedFd(fd)).fileno() for job in deaf for fd in _open_below(Pid(job.pid))}
        for fd in below:
            poll.register(fd, select.POLLIN)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGTERM)
        while below and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                poll.unregister(fd)
                below.remove(fd)


def _open_below(pid: Pid) -> list[int]:
    found = []
    for each in read_tree(pid)[1:]:
        with suppress(ProcessLookupError):
            found.append(open_pidfd(each))
    return found
