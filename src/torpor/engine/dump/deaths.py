"""A process that is killed while it is being checkpointed: whatever fails by that is told as what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torpor.base.errors import ActionScriptError, TargetGoneError
from torpor.base.ids import Pid
from torpor.images.errors import ImageError
from torpor.kernel.procfs.stat import read_stat
from torpor.objects.model import DumpProcess


@contextmanager
def told(processes: Sequence[DumpProcess]) -> Iterator[None]:
    """An error in here is TargetGoneError where one of *processes*, all stopped by us, has died."""
    try:
        yield
    except (ImageError, TargetGoneError, ActionScriptError):
        raise
    except Exception as error:
        for process in processes:
            if not process.is_zombie and _has_died(process.pid):
                raise TargetGoneError(f"{process.describe()} was killed while it was checkpointed") from error
        raise


def _has_died(pid: Pid) -> bool:
    try:
        return read_stat(pid).state in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
