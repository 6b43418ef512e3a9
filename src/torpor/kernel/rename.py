"""renameat2(2) and syncfs(2): what Python has no wrappers for."""

from __future__ import annotations

import os

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fs import RENAME_EXCHANGE


def exchange(directory: int, one: str, other: str) -> None:
    """Each of two names in *directory* (a descriptor) gets what the other has, at once.

    OSError: EINVAL or ENOSYS where the file system cannot.
    """
    names = [bytearray(os.fsencode(name) + b"\0") for name in (one, other)]
    first, second = (address_of(name) for name in names)
    what = f"exchange of {one} and {other}"
    syscall(what, nr.renameat2, directory, first, directory, second, RENAME_EXCHANGE)


def syncfs(fd: int) -> None:
    """Write all of the file system that *fd* lies on; an error of any file of it since *fd* was opened is raised."""
    syscall("syncfs", nr.syncfs, fd)
