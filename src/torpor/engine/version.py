"""The version of images: CRIU's, or one that other readers refuse, where they would undo what confines a task."""

from __future__ import annotations

from collections.abc import Iterable

from torpor.objects.model import DumpProcess

CRIU = 2
#: As ``CRIU``, with what must not be ignored: MDWE, Syscall User Dispatch, limits of namespaces.
OURS = 10002
KNOWN = (1, CRIU, OURS)


def of(processes: Iterable[DumpProcess]) -> int:
    """That of the images of these processes."""
    for process in processes:
        if process.mm.HasField("torpor_mdwe") or process.core.tc.torpor_confined:
            return OURS
        if any(thread.core.thread_core.HasField("torpor_dispatch") for thread in process.threads):
            return OURS
    return CRIU
