"""renameat2(2) and syncfs(2): what Python has no wrappers for."""

from __future__ import annotations

import os

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fs import RENAME_EXCHANGE, RENAME_NOREPLACE


def exchange(directory: int, one: str, other: str) -> None:
    """Each of two names in *directory* (a descriptor) gets what the other has, at once.

    OSError: EINVAL or ENOSYS where the file system cannot.
    """
    _rename(f"exchange of {one} and {other}", directory, one, other, RENAME_EXCHANGE)


def put(directory: int, old: str, new: str) -> None:
    """Rename *old* to *new*, both in *directory* (a descriptor), if there is no *new*.

    OSError: EEXIST where there is one, ENOENT where there is no *old*, EINVAL or ENOSYS where the file system cannot.
    """
    _rename(f"{old} to {new}", directory, old, new, RENAME_NOREPLACE)


def _rename(what: str, directory: int, one: str, other: str, flags: int) -> None:
    names = [bytearray(os.fsencode(name) + b"\0") for name in (one, other)]
    first, second = (address_of(name) for name in names)
    syscall(what, nr.renameat2, directory, first, directory, second, flags)


def syncfs(fd: int) -> None:
    """Write all of the file system that *fd* lies on; an error of any file of it since *fd* was opened is raised."""
    syscall("syncfs", nr.syncfs, fd)
