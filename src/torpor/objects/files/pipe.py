"""Pipes: both ends of each, contents, size and packet mode.

Kernel view
    pipefs inodes; tee(2) copies the contents without consuming them, packet boundaries included; F_GETPIPE_SZ.  POLLHUP
    and POLLERR tell that nobody has the other end.
Image
    ``pipe_entry`` per description, ``pipe_data_entry`` with the bytes per pipe; ``torpor_packets`` are the lengths of
    the packets in it, ``torpor_outside`` says that the other end is open outside of the tree only; ``torpor_uid`` and
    ``torpor_gid`` are the owner's.
Restore
    The first end asked for makes the pipe, fills it, and opens further descriptions through ``/proc/self/fd``.  The
    other end of a pipe that led outside is nobody's (EPIPE, end of file), unless ``--inherit-fd`` gives the pipe.
Limits
    A packet behind bytes that were written without O_DIRECT is one with them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

from torpor.base import log
from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.kinds import PIPES_DATA
from torpor.images.store import Sorted
from torpor.kernel import lsm
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ
from torpor.kernel.uapi.ioctls import FIONREAD
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile, Placed
from torpor.objects.session import DumpContext, DumpStage, RestoreContext

_SPLICE_NONBLOCK = 2
_PACKET_MAX = 4096
_O_ASYNC = 0o20000
_O_LARGEFILE = 0o100000
_OPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC


def matches(file: OpenFile) -> bool:
    """Whether it is an end of a pipe without a name, of pipe(2)."""
    return stat.S_ISFIFO(file.stat.st_mode) and file.target.startswith("pipe:")


# -- dump -----------------------------------------------------------------------------------------------------


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.pipe``; the contents go to pipes-data.img once, when all ends are known."""
    pipe = entry.pipe
    pipe.id, pipe.pipe_id, pipe.flags = entry.id, file.stat.st_ino, file.flags
    fown.fill(pipe.fown, file)
    user, group = file.process.idmaps.inside(file.stat.st_uid, file.stat.st_gid)
    if user or group:
        pipe.torpor_uid, pipe.torpor_gid = user, group
    context.part(_Pipes).add(file)


@dataclass(slots=True)
class _Pipe:
    """What is known of a pipe from the ends met so far."""

    first: str
    chunks: list[bytes]
    size: int
    is_packetized: bool = False
    access: set[int] = field(default_factory=set)
    has_reader: bool = True
    has_writer: bool = True


class _Pipes:
    """All pipes of a dump."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._pipes: dict[int, _Pipe] = {}
        context.at(DumpStage.WRITTEN, self._store)

    def add(self, file: OpenFile) -> None:
        """Take note of an end, and of the contents with the first."""
        number = file.stat.st_ino
        if number not in self._pipes:
            size = fcntl.fcntl(file.fd, F_GETPIPE_SZ)
            self._pipes[number] = _Pipe(file.describe(), peek_chunks(file, size), size)
        known = self._pipes[number]
        access = file.flags & os.O_ACCMODE
        known.access.add(access)
        known.is_packetized |= bool(file.flags & os.O_DIRECT)
        poller = select.poll()
        poller.register(file.fd, 0)
        events = sum(found for _, found in poller.poll(0))
        if access == os.O_RDONLY:
            known.has_writer = not events & select.POLLHUP
        elif access == os.O_WRONLY:
            known.has_reader = not events & select.POLLERR

    def _store(self) -> None:
        for number, known in self._pipes.items():
            data = b"".join(known.chunks)
            entry = m.pipe_data_entry(pipe_id=number, bytes=len(data), size=known.size)
            if known.is_packetized or len(known.chunks) > 1:
                entry.torpor_packets.extend(map(len, known.chunks))
            if self._leads_outside(known):
                entry.torpor_outside = True
                self._allow(known, number)
            self._context.image("PIPES_DATA").add(Entry(entry, data))

    def _allow(self, known: _Pipe, number: int) -> None:
        what = f"{known.first}: the other end of pipe:[{number}] is outside of the tree"
        if not self._context.policies.files.external_pipes:
            raise RefusedError(what, hint="--external-pipes goes on without it")
        log.warn(f"{what}; after the restore nobody is there, unless --inherit-fd gives another")

    def _leads_outside(self, known: _Pipe) -> bool:
        if os.O_RDWR in known.access or len(known.access) > 1:
            return False
        return known.has_writer if os.O_RDONLY in known.access else known.has_reader


def peek(file: OpenFile, size: int) -> bytes:
    """The contents of a pipe or FIFO, left in place."""
    return b"".join(peek_chunks(file, size))


def peek_chunks(file: OpenFile, size: int) -> list[bytes]:
    """The contents, left in place, as reads would give them: each packet by itself.  A write end is reopened."""
    if not any(fcntl.ioctl(file.fd, FIONREAD, bytes(4))):
        return []
    source = os.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    chunks: list[bytes] = []
    try:
        fcntl.fcntl(writer, F_SETPIPE_SZ, size)
        try:
            left = tee(source, writer, size)
        except BlockingIOError:
            return []
        while left > 0 and (chunk := os.read(reader, left)):
            chunks.append(chunk)
            left -= len(chunk)
        return chunks
    finally:
        for fd in (source, reader, writer):
            os.close(fd)


def tee(source: int, target: int, length: int) -> int:
    """tee(2), not blocking; the number of bytes."""
    return syscall("tee", nr.tee, source, target, length, _SPLICE_NONBLOCK)


# -- restore --------------------------------------------------------------------------------------------------


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """This end; the pipe itself with its contents when it is the first."""
    pipe = entry.pipe
    flags = pipe.flags & ~_O_ASYNC
    inherited = context.files.inherited.get(f"pipe:[{pipe.pipe_id}]")
    if inherited is not None:
        is_pipe = stat.S_ISFIFO(os.fstat(inherited).st_mode)
        return _open_end(inherited, flags) if is_pipe else os.dup(inherited)
    keeper = context.files.shared(("pipe", pipe.pipe_id), lambda: _make(pipe.pipe_id, context))
    if not flags & _O_LARGEFILE:
        # An end that pipe(2) made: open(2) would add O_LARGEFILE.
        end = context.part(_Ends).take(pipe.pipe_id, flags & os.O_ACCMODE)
        if end is not None:
            status_flags.restore(end, flags)
            return end
    return _open_end(keeper, flags)


def attach(entry: m.file_entry, context: RestoreContext, placed: Placed) -> None:
    """The owner, also of a pipe that was given: who it belonged to may open /proc/self/fd/1 anew."""
    pipe = entry.pipe
    if pipe.HasField("torpor_uid") and stat.S_ISFIFO(os.fstat(placed.fd).st_mode):
        os.fchown(placed.fd, *context.idmaps.outside(pipe.torpor_uid, pipe.torpor_gid))


def _open_end(of: int, flags: int) -> int:
    fd = os.open(f"/proc/self/fd/{of}", flags & ~(os.O_DIRECT | _OPENING) | os.O_CLOEXEC)
    if flags & os.O_DIRECT:
        # Packet mode is set afterwards: for open(2) O_DIRECT has its other meaning.
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return fd


class _Ends:
    """The ends that pipe(2) made, each for one description; the others are opened."""

    def __init__(self, context: RestoreContext) -> None:
        self._free: dict[tuple[int, int], OwnedFd] = {}

    def add(self, pipe_id: int, reader: OwnedFd, writer: OwnedFd) -> None:
        """Keep both ends, blocking ones."""
        for access, end in ((os.O_RDONLY, reader), (os.O_WRONLY, writer)):
            os.set_blocking(end.fileno(), True)
            self._free[pipe_id, access] = end

    def take(self, pipe_id: int, access: int) -> int | None:
        """The end with that access mode, if nobody has taken it."""
        found = self._free.pop((pipe_id, access), None)
        return None if found is None else found.release()


def _make(pipe_id: int, context: RestoreContext) -> int:
    flags, label = os.O_CLOEXEC | os.O_NONBLOCK, context.files.label
    if label and label != lsm.own_label():
        from torpor.objects.files.domains import Domains

        reader, writer = context.part(Domains).make_pipe(label, flags)
    else:
        reader, writer = map(OwnedFd, os.pipe2(flags))
    # It keeps the pipe and its contents alive while further descriptions are opened.
    keeper = OwnedFd(os.dup(reader.fileno()))
    for found in context.part(_Contents).take(pipe_id):
        data = found.message
        assert isinstance(data, m.pipe_data_entry)
        if data.torpor_outside:
            log.warn(f"pipe:[{pipe_id}] led out of the tree, and nobody is at its other end now (--inherit-fd)")
        fill(writer.fileno(), data, found.payload)
    fcntl.fcntl(writer.fileno(), fcntl.F_SETFL, 0)
    context.part(_Ends).add(pipe_id, reader, writer)
    return keeper.release()


class _Contents(Sorted):
    """What was in the pipes of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        super().__init__(context.store, PIPES_DATA, "pipe_id")


def fill(fd: int, data: m.pipe_data_entry, content: bytes) -> None:
    """Size and contents, by a write end that does not block."""
    if data.size:
        _set_size(fd, data.size, len(content))
    lengths = list(data.torpor_packets) or [len(content)]
    if sum(lengths) != len(content):
        raise ImageError(f"pipes-data.img: {data.pipe_id}: the packets' lengths do not add up")
    start = 0
    try:
        for length in lengths:
            if data.torpor_packets:
                is_packet = length <= _PACKET_MAX
                fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | (os.O_DIRECT if is_packet else 0))
            if length and os.write(fd, content[start : start + length]) != length:
                raise BlockingIOError
            start += length
    except BlockingIOError:
        raise RestoreError(f"pipe {data.pipe_id}: {len(content)} bytes do not fit into it here") from None


def _set_size(fd: int, size: int, n_bytes: int) -> None:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, size)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        with open("/proc/sys/fs/pipe-max-size", encoding="ascii") as stream:
            largest = int(stream.read())
        if n_bytes > largest or error.errno == errno.EINVAL:
            raise RestoreError(
                f"a pipe of {size} bytes cannot be made: {error.strerror}", hint="raise fs.pipe-max-size"
            ) from error
        log.warn(f"a pipe had {size} bytes, and can have {largest} here: raise fs.pipe-max-size")
        fcntl.fcntl(fd, F_SETPIPE_SZ, largest)


KIND = FileKind(
    "pipe", m.fd_types.PIPE, matches, dump, restore, attach,
    inherit_name=lambda entry, session: f"pipe:[{entry.pipe.pipe_id}]",
)  # fmt: skip
