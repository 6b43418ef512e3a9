"""What we ourselves must be allowed, asked before anything is done to anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator

from torpor.base.errors import NotPermittedError, TorporError

#: Descriptors that we have besides those of files in the images.
_OTHERS = 32
_HINT = "run it as root, or give it CAP_CHECKPOINT_RESTORE in the user namespace of the host"


def problems() -> Iterator[TorporError]:
    """An error where the kernel does not let us see which files a task has mapped, even if it is our own."""
    place = "/proc/self/map_files"
    try:
        name = next(iter(os.listdir(place)), None)
        if name is not None:
            os.stat(f"{place}/{name}")
    except PermissionError:
        yield NotPermittedError("a checkpoint needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN", hint=_HINT)
    except OSError:
        return  # whoever needs it will see


def room_for(n_processes: int) -> Iterator[TorporError]:
    """See to it that so many processes can be held at once: each by a descriptor of ours."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = n_processes + _OTHERS
    if needed > hard:
        yield NotPermittedError(
            f"the tree has {n_processes} processes, and RLIMIT_NOFILE allows torpor {hard} descriptors",
            hint=f"raise the hard limit: ulimit -Hn {needed}",
        )
    elif needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
