"""The files behind mappings.

Kernel view
    ``/proc/PID/map_files/START-END`` opens the very file, renamed or deleted.
Image
    An entry in files.img like any file's, opened for reading, or for both where a shared mapping may be written.
"""

from __future__ import annotations

import os

from torpor.kernel.procfs.maps import Vma
from torpor.objects.files.model import FileDump, OpenFile
from torpor.objects.model import DumpProcess

_O_PATH = 0o10000000


def file_id_of(process: DumpProcess, vma: Vma, session: FileDump) -> int:
    """Dump the file that *vma* maps, once for all mappings of it; its id."""
    writable = vma.shared and "mw" in vma.flags
    key = ("map", vma.device, vma.inode, os.O_RDWR if writable else 0)
    if session.has(key):
        return session.opened_id(key)
    path = f"/proc/{process.pid}/map_files/{vma.start:x}-{vma.end:x}"
    fd = os.open(path, _O_PATH | os.O_CLOEXEC)
    try:
        flags = f"flags:\t{os.O_RDWR if writable else 0:o}"
        file = OpenFile(process, -1, fd, os.readlink(path), os.fstat(fd), ["pos:\t0", flags])
        return session.add_opened(key, file)
    finally:
        os.close(fd)
