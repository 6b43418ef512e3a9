"""signalfd(2): signals to be read from a descriptor.

Kernel view
    ``sigmask`` (hexadecimal, bit 0 is signal 1) in fdinfo.  What is pending belongs to the task that reads.
Image
    ``signalfd_entry``.
Restore
    ``signalfd4`` with the same mask.
Limits
    None: signals that wait are the task's own (``task.signals``).
"""

from __future__ import annotations

from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.signalfd import SFD_CLOEXEC
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_LINK = "anon_inode:[signalfd]"
_NEW = (1 << 64) - 1
_SIGSET_SIZE = 8


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target == _LINK


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.sgfd`` with the signals that it takes, bit 0 for signal 1."""
    sgfd = entry.sgfd
    sgfd.id, sgfd.flags = entry.id, file.flags
    fown.fill(sgfd.fown, file)
    sgfd.sigmask = int(file.info("sigmask"), 16)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A new signalfd with the mask and flags of the image, which the caller owns.  OSError."""
    mask = bytearray(entry.sgfd.sigmask.to_bytes(_SIGSET_SIZE, "little"))
    fd = syscall("signalfd4", nr.signalfd4, _NEW, address_of(mask), _SIGSET_SIZE, SFD_CLOEXEC)
    status_flags.restore(fd, entry.sgfd.flags)
    return fd


KIND = FileKind("signalfd", m.fd_types.SIGNALFD, matches, dump, restore)
