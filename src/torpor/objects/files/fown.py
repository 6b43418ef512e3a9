"""The owner of a file: whom to signal for it (F_SETOWN, F_SETSIG).

Kernel view
    F_GETOWN_EX, F_GETSIG and F_GETOWNER_UIDS on any descriptor of the description.
Image
    ``fown_entry`` in each kind's entry.
Restore
    In ``attach``: by a process that holds it, so that pids mean what they mean there.
"""

from __future__ import annotations

import fcntl
import struct

from torpor.images import messages as m
from torpor.objects.files.model import OpenFile

F_SETSIG = 10
F_GETSIG = 11
F_SETOWN_EX = 15
F_GETOWN_EX = 16
F_GETOWNER_UIDS = 17
_O_PATH = 0o10000000


def fill(fown: m.fown_entry, file: OpenFile) -> None:
    """Fill in the owner of *file*; one that we opened ourselves has none."""
    fown.uid = fown.euid = fown.signum = fown.pid_type = fown.pid = 0
    if file.number < 0 or file.flags & _O_PATH:
        return
    kind, pid = struct.unpack("ii", fcntl.fcntl(file.fd, F_GETOWN_EX, bytes(8)))
    if pid:
        fown.pid_type, fown.pid = kind, pid
        fown.signum = fcntl.fcntl(file.fd, F_GETSIG)
        fown.uid, fown.euid = struct.unpack("II", fcntl.fcntl(file.fd, F_GETOWNER_UIDS, bytes(8)))
