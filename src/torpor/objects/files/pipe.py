"""Pipes: both ends of each, contents, size and packet mode.

Kernel view
    pipefs inodes; tee(2) copies the contents without consuming them; F_GETPIPE_SZ.
Image
    ``pipe_entry`` per description, ``pipe_data_entry`` with the bytes per pipe.
Restore
    The first end asked for makes the pipe, fills it, and opens further descriptions through ``/proc/self/fd``.
Limits
    Packet boundaries are kept only as far as splice keeps them.
"""

from __future__ import annotations

import fcntl
import os
import stat

from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.format import Entry
from torpor.images.store import iter_entries
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileDump, FileKind, FileRestore, OpenFile

F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
_SPLICE_NONBLOCK = 2
_O_ASYNC = 0o20000
_O_LARGEFILE = 0o100000


def matches(file: OpenFile) -> bool:
    """Anonymous pipes."""
    return stat.S_ISFIFO(file.stat.st_mode) and file.target.startswith("pipe:")


def dump(file: OpenFile, entry: m.file_entry, session: FileDump) -> None:
    """Fill in ``entry.pipe``; the contents go to pipes-data.img once."""
    pipe = entry.pipe
    pipe.id, pipe.pipe_id, pipe.flags = entry.id, file.stat.st_ino, file.flags
    fown.fill(pipe.fown, file)
    size = fcntl.fcntl(file.fd, F_GETPIPE_SZ)
    images = session.image("PIPES_DATA")
    if session.once(("pipe", file.stat.st_ino)):
        data = peek(file, size)
        images.add(Entry(m.pipe_data_entry(pipe_id=file.stat.st_ino, bytes=len(data), size=size), data))


def peek(file: OpenFile, size: int) -> bytes:
    """The contents, left in place.  A write end is reopened for reading."""
    source = os.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.fcntl(writer, F_SETPIPE_SZ, size)
        try:
            count = tee(source, writer, size)
        except BlockingIOError:
            return b""
        return os.read(reader, count) if count else b""
    finally:
        for fd in (source, reader, writer):
            os.close(fd)


def tee(source: int, target: int, length: int) -> int:
    """tee(2), not blocking; the number of bytes."""
    from torpor.kernel.arch import nr
    from torpor.kernel.syscall import syscall

    return syscall("tee", nr.tee, source, target, length, _SPLICE_NONBLOCK)


def restore(entry: m.file_entry, session: FileRestore) -> int:
    """This end; the pipe itself with its contents when it is the first."""
    pipe = entry.pipe
    keeper = session.shared(("pipe", pipe.pipe_id), lambda: _make(pipe.pipe_id, session))
    flags = pipe.flags & ~_O_ASYNC
    if not flags & _O_LARGEFILE:
        # An end that pipe(2) made: open(2) would add O_LARGEFILE.
        end = session.part(Ends).take(pipe.pipe_id, flags & os.O_ACCMODE)
        if end is not None:
            status_flags.restore(end, flags)
            return end
    fd = os.open(f"/proc/self/fd/{keeper}", flags & ~os.O_DIRECT | os.O_CLOEXEC)
    if flags & os.O_DIRECT:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return fd


class Ends:
    """The ends that pipe(2) made, each for one description; the others are opened."""

    def __init__(self, session: FileRestore) -> None:
        self._free: dict[tuple[int, int], OwnedFd] = {}

    def add(self, pipe_id: int, reader: int, writer: int) -> None:
        """Keep both ends, blocking ones."""
        self._free[pipe_id, os.O_RDONLY] = OwnedFd(reader)
        self._free[pipe_id, os.O_WRONLY] = OwnedFd(writer)

    def take(self, pipe_id: int, access: int) -> int | None:
        """The end with that access mode, if nobody has taken it."""
        found = self._free.pop((pipe_id, access), None)
        return None if found is None else found.release()


def _make(pipe_id: int, session: FileRestore) -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # One description with both directions keeps the pipe and its contents alive while the others are opened.
    keeper = os.open(f"/proc/self/fd/{reader}", os.O_RDWR | os.O_CLOEXEC)
    session.part(Ends).add(pipe_id, reader, writer)
    for item in iter_entries(session.store, "PIPES_DATA"):
        data = item.message
        assert isinstance(data, m.pipe_data_entry)
        if data.pipe_id == pipe_id:
            if data.size:
                fcntl.fcntl(writer, F_SETPIPE_SZ, data.size)
            if data.bytes:
                os.write(writer, item.payload)
    os.set_blocking(reader, True)
    os.set_blocking(writer, True)
    return keeper


KIND = FileKind(
    "pipe", m.fd_types.PIPE, matches, dump, restore, inherit_name=lambda entry, session: f"pipe:[{entry.pipe.pipe_id}]"
)
