"""FIFOs: pipes with a name in the file system.

Kernel view
    As a pipe's; the inode has a path, which may be deleted.
Image
    ``fifo_entry`` per description, which refers to a ``reg_file_entry`` for name and flags; the contents per FIFO in
    ``fifo-data.img``, as of pipes.
Restore
    A description with both directions is opened first: it takes the contents, and no other open waits for a partner.
Limits
    Contents are carried whoever else outside of the tree has the FIFO open.
"""

from __future__ import annotations

import fcntl
import os
import stat

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.store import Sorted
from torpor.images.text import get_text
from torpor.kernel.uapi.fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, O_PATH
from torpor.objects.files import pipe, regular
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_O_ASYNC = 0o20000
_OPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOFOLLOW


def matches(file: OpenFile) -> bool:
    """A FIFO with a path, opened for its data."""
    return stat.S_ISFIFO(file.stat.st_mode) and file.target.startswith("/") and not file.flags & O_PATH


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.fifo`` and an entry for the name; the contents once."""
    inner = context.files.new_entry(m.fd_types.REG)
    regular.dump(file, inner, context)
    fifo = entry.fifo
    fifo.id, fifo.pipe_id, fifo.regf_id = entry.id, file.stat.st_ino, inner.id
    images = context.image("FIFO_DATA")
    if context.once(("fifo", file.stat.st_dev, file.stat.st_ino)):
        size = fcntl.fcntl(file.fd, F_GETPIPE_SZ)
        data = pipe.peek(file, size)
        images.add(Entry(m.pipe_data_entry(pipe_id=file.stat.st_ino, bytes=len(data), size=size), data))


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """This description; the contents with the first one of the FIFO."""
    reg = _name_entry(entry, context)
    keeper = context.files.shared(("fifo", entry.fifo.pipe_id), lambda: _fill(entry.fifo.pipe_id, reg, context))
    return os.open(f"/proc/self/fd/{keeper}", reg.flags & ~_OPENING & ~_O_ASYNC | os.O_CLOEXEC)


def _name_entry(entry: m.file_entry, context: RestoreContext) -> m.reg_file_entry:
    found = context.files.entry(entry.fifo.regf_id if entry.fifo.HasField("regf_id") else entry.id)
    if not found.HasField("reg"):
        raise ImageError(f"files.img: FIFO {entry.id} has no name")
    return found.reg


def _fill(pipe_id: int, reg: m.reg_file_entry, context: RestoreContext) -> int:
    fd = regular.open_file(reg, os.O_RDWR | os.O_NONBLOCK, context, lambda info: stat.S_ISFIFO(info.st_mode))
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise ImageError(f"files.img: {reg.name} is no FIFO")
        for item in context.part(_Contents).take(pipe_id):
            data = item.message
            assert isinstance(data, m.pipe_data_entry)
            if data.size:
                fcntl.fcntl(fd, F_SETPIPE_SZ, data.size)
            if item.payload:
                os.write(fd, item.payload)
    except BaseException:
        os.close(fd)
        raise
    return fd


class _Contents(Sorted):
    """What was in the FIFOs of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        super().__init__(context.store, "FIFO_DATA", "pipe_id")


KIND = FileKind(
    "FIFO",
    m.fd_types.FIFO,
    matches,
    dump,
    restore,
    inherit_name=lambda entry, session: get_text(_name_entry(entry, session).name),
)
