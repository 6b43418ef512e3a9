"""What we ourselves must be allowed, asked before anything is done to anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator

from torpor.base.errors import NotPermittedError, TorporError

HINT = "run it as root, or give it CAP_CHECKPOINT_RESTORE in the user namespace of the host"


def problems() -> Iterator[TorporError]:
    """An error where the kernel does not let us see which files a task has mapped, even if it is our own."""
    place = "/proc/self/map_files"
    try:
        name = next(iter(os.listdir(place)), None)
        if name is not None:
            os.stat(f"{place}/{name}")
    except PermissionError:
        yield NotPermittedError("a checkpoint needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN", hint=HINT)
    except OSError:
        return  # whoever needs it will see
