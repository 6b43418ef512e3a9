"""What we ourselves must be allowed, asked before anything is done to anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator

from torpor.base.errors import NotPermittedError, TorporError
from torpor.engine.session import RestoreSession
from torpor.kernel import namespaces as ns
from torpor.kernel.procfs.status import read_status

_CAP_SYS_ADMIN = 1 << 21
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


def check_restore(session: RestoreSession) -> None:
    """NotPermittedError where the tree has namespaces of its own and we may not make any."""
    flags = session.root_clone_flags
    if not flags or flags & ns.CLONE_NEWUSER or read_status(os.getpid()).cap_effective & _CAP_SYS_ADMIN:
        return
    raise NotPermittedError("a restore into namespaces of its own needs CAP_SYS_ADMIN", hint="run it as root")
