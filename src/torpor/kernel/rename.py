"""renameat2(2) and syncfs(2): what Python has no wrappers for."""

from __future__ import annotations

import os

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fs import RENAME_NOREPLACE

_RENAME_EXCHANGE = 2


def exchange(directory: int, one: str, other: str) -> None:
    """Each of two names in *directory* (a descriptor) gets what the other has, at once.

    OSError: EINVAL or ENOSYS where the file system cannot.
    """
    _rename(directory, one, other, _RENAME_EXCHANGE)


def rename_new(directory: int, old: str, new: str) -> None:
    """Rename in *directory*, with EEXIST where there is a *new* already; not every file system can (EINVAL)."""
    _rename(directory, old, new, RENAME_NOREPLACE)


def _rename(directory: int, old: str, new: str, flags: int) -> None:
    names = [bytearray(os.fsencode(name) + b"\0") for name in (old, new)]
    first, second = (address_of(name) for name in names)
    syscall(f"rename {old} to {new}", nr.renameat2, directory, first, directory, second, flags)


def syncfs(fd: int) -> None:
    """Write all of the file system that *fd* lies on; an error of any file of it since *fd* was opened is raised."""
    syscall("syncfs", nr.syncfs, fd)
