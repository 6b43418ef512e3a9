"""Memory whose pages are never going to come: nobody reads zeroes in their place.

Descriptors that are merely closed would leave just these.  Whoever touches such a page dies of it (UFFDIO_POISON, Linux
6.6); before, he waits for it for as long as he lives, which SIGKILL ends.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.fds import OwnedFd
from torpor.kernel import missing
from torpor.kernel.vm import PAGE_SIZE

_WAIT_MS = 1000


def hold(faults: Sequence[int]) -> None:
    """``keep`` in a process of its own; the descriptors *faults* stay the caller's.  OSError."""
    from torpor.tracee.detached import spawn

    spawn(lambda: keep([OwnedFd(number) for number in faults]), tuple(faults))


def keep(faults: list[OwnedFd]) -> None:
    """Until nobody has the memory of *faults*, which are closed then, or of its forks: have no page there be zeroes."""
    while faults:
        faults[:] = [fd for fd in faults if _is_waited_for(fd)]
        _poison_touched(faults)


def _is_waited_for(faults: OwnedFd) -> bool:
    """Whether the memory is there still: of what no mapping has another error is told than of what is gone."""
    try:
        missing.zero(faults.fileno(), 0, PAGE_SIZE)
    except missing.Gone:
        faults.close()
        return False
    except (missing.Changing, OSError):
        return True
    return True


def _poison_touched(faults: list[OwnedFd]) -> None:
    import select

    poll = select.poll()
    for fd in faults:
        os.set_blocking(fd.fileno(), False)
        poll.register(fd.fileno(), select.POLLIN)
    for ready, _ in poll.poll(_WAIT_MS) if faults else ():
        for event in missing.read_events(ready):
            match event:
                case missing.Fault(address):
                    with suppress(OSError, missing.Gone, missing.Changing):
                        missing.poison(ready, address & -PAGE_SIZE, PAGE_SIZE)
                case missing.Forked(number):
                    faults.append(OwnedFd(number))
