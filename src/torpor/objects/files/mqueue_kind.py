"""How a POSIX message queue is told from a regular file; what carries it, ``mqueue``, is imported when there is one."""

from __future__ import annotations

import os
import stat

from torpor.base.late import late
from torpor.images import messages as m
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files.model import FileKind, OpenFile

#: What stat(2) says of every queue.
_SIZE = 80
_MODULE = "torpor.objects.files.mqueue"


def matches(file: OpenFile) -> bool:
    """A regular file of the size that all queues have, on a file system without a device, which is mqueue."""
    info = file.stat
    if info.st_size != _SIZE or os.major(info.st_dev) or not stat.S_ISREG(info.st_mode) or file.flags & O_PATH:
        return False
    from torpor.kernel import mqueue

    return bool(mqueue.is_queue(file.fd))


KIND = FileKind(
    "message queue",
    m.fd_types.UND,
    matches,
    late(_MODULE, "dump"),
    late(_MODULE, "restore"),
    late(_MODULE, "attach"),
)
