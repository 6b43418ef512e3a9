"""A process of ours that outlives us: nobody's child for long, in a session of its own, with nothing of ours open."""

from __future__ import annotations

import os
from collections.abc import Callable

from torpor.kernel import errand


def spawn(work: Callable[[], None], keep: tuple[int, ...] = ()) -> None:
    """Run *work* in a detached process of ours that holds no descriptors but *keep* and is nobody's child for long.

    No handler of ours is in force there: signals do to it, and to what it forks, what they do to any program.
    """
    with errand.deaf() as mask:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setsid()
                if os.fork() == 0:
                    _detach(keep)
                    errand.hear(mask)
                    work()
                status = 0
            finally:
                os._exit(status)
        os.waitpid(child, 0)


def _detach(keep: tuple[int, ...]) -> None:
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        if number not in keep:
            os.dup2(null, number)
    wanted = sorted({0, 1, 2, *keep})
    for low, high in zip(wanted, [*wanted[1:], 1 << 16], strict=True):
        os.closerange(low + 1, high)
