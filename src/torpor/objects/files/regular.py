"""Files with a name: regular files, directories, device nodes that need no care.

Kernel view
    The link in ``/proc/PID/fd``, fstat(2), fdinfo's offset and flags.
Image
    ``reg_file_entry``.
Restore
    open(2) below the task's root, then lseek(2).
Limits
    The size is compared at restore: a file that has shrunk or grown under a mapping is not the file that was mapped.
"""

from __future__ import annotations

import os
import stat

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.objects.files import fown
from torpor.objects.files.model import FileDump, FileKind, FileRestore, OpenFile

_O_PATH = 0o10000000
_O_TMPFILE = 0o20000000
_DELETED = " (deleted)"
_ONCE = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY


def matches(file: OpenFile) -> bool:
    """Anything with a path that is a regular file, a directory, or opened with O_PATH; and plain devices."""
    mode = file.stat.st_mode
    return file.target.startswith("/") and (
        stat.S_ISREG(mode) or stat.S_ISDIR(mode) or bool(file.flags & _O_PATH) or _is_plain_device(file)
    )


def _is_plain_device(file: OpenFile) -> bool:
    """/dev/null, zero, full, random, urandom: no state."""
    mode, rdev = file.stat.st_mode, file.stat.st_rdev
    return stat.S_ISCHR(mode) and os.major(rdev) == 1 and os.minor(rdev) in (3, 5, 7, 8, 9)


def dump(file: OpenFile, entry: m.file_entry, session: FileDump) -> None:
    """Fill in ``entry.reg``."""
    reg = entry.reg
    reg.id, reg.flags, reg.pos = entry.id, file.flags, file.pos
    fown.fill(reg.fown, file)
    if file.target.endswith(_DELETED) and file.stat.st_nlink == 0:
        raise file.refuse(f"{file.target}: deleted files are not carried yet")
    reg.name = file.target
    reg.mode = file.stat.st_mode
    if stat.S_ISREG(file.stat.st_mode):
        reg.size = file.stat.st_size


def restore(entry: m.file_entry, session: FileRestore) -> int:
    """Open the file and set its offset."""
    reg = entry.reg
    fd = open_below(session.root_fd, reg.name, reg.flags & ~_ONCE & ~_O_TMPFILE | os.O_NOCTTY)
    try:
        if reg.HasField("mode") and stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(reg.mode):
            raise RestoreError(f"{reg.name} is not the kind of file that it was", hint="bring the old file back")
        if reg.pos and not reg.flags & _O_PATH:
            os.lseek(fd, reg.pos, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_below(root_fd: int, path: str, flags: int) -> int:
    """Open *path* as a process whose root is *root_fd* would; RestoreError says what is missing."""
    try:
        return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, dir_fd=root_fd)
    except OSError as error:
        raise RestoreError(
            f"{path}: {error.strerror}", hint="the file must be where it was when the checkpoint was made"
        ) from error


KIND = FileKind("file", m.fd_types.REG, matches, dump, restore)
