"""What is behind a mapping: nothing, a file, shared memory, or something of the kernel's.

Kernel view
    The name and device in maps; ``/proc/PID/map_files/START-END`` opens the very file, renamed or deleted.
Image
    The VMA_AREA_* of ``vma_entry.status``, and ``shmid``: the id of an entry in files.img like any file's, opened for
    reading, or for both where a shared mapping may be written; or the id of a shared segment.
Restore
    ``vmas`` maps again what the status says: nothing, the file of that id, or the segment.
Limits
    Refused: rings of io_uring, BPF maps, memory of devices; a System V segment of our own IPC namespace; a socket's
    ring of which the process has no descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

from torpor.base.errors import RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.late import late
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.kernel import sharedmem
from torpor.kernel.procfs.maps import Vma
from torpor.kernel.procfs.task import read_fds
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.mman import MAP_ANONYMOUS
from torpor.objects.files.model import OpenFile
from torpor.objects.memory.areas import (
    ANON_PRIVATE,
    ANON_SHARED,
    AREA_HEAP,
    AREA_MEMFD,
    AREA_REGULAR,
    AREA_SOCKET,
    AREA_SYSVIPC,
    AREA_VDSO,
    AREA_VSYSCALL,
    AREA_VVAR,
    FILE_PRIVATE,
    FILE_SHARED,
)
from torpor.objects.memory.segments import SegmentDump
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext

_RDWR = os.O_RDWR
_ANON_SHMEM = ("/dev/zero (deleted)", "/anon_hugepage (deleted)")
_DEVICE_FLAGS = frozenset(("io", "pf"))
_SYSV = "/SYSV"


@dataclass(frozen=True, slots=True)
class Backing:
    """A kind of mapping: ``fill`` completes ``status``, ``shmid``, ``pgoff`` and MAP_ANONYMOUS of its entry."""

    name: str
    matches: Callable[[Vma], bool]
    fill: Callable[[DumpProcess, Vma, m.vma_entry, DumpContext], None]


def fill(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
    """Complete *entry* by what is behind *vma*; RefusedError for what cannot be mapped again."""
    if not vma.name and not vma.is_file:  # as thousands are
        _fill_anonymous(process, vma, entry, context)
        return
    _backing_of(vma.shared, vma.device, vma.inode, vma.name, vma.flags).fill(process, vma, entry, context)


@lru_cache(maxsize=256)
def _backing_of(shared: bool, device: int, inode: int, name: str, flags: frozenset[str]) -> Backing:
    """By all that ``matches`` of any looks at: a tree's processes have the same libraries."""
    vma = Vma(0, 0, 0, shared, 0, device, inode, name, flags)
    return next(backing for backing in BACKINGS if backing.matches(vma))


def _without_file(status: int) -> Callable[[DumpProcess, Vma, m.vma_entry, DumpContext], None]:
    def fill(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
        entry.status = status | ANON_PRIVATE
        entry.flags |= MAP_ANONYMOUS
        entry.pgoff = 0

    return fill


def _refuse(what: str, hint: str) -> Callable[[DumpProcess, Vma, m.vma_entry, DumpContext], None]:
    def fill(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
        raise RefusedError(f"{process.describe()} maps {what} ({vma.name}) at {vma.start:#x}", hint=hint)

    return fill


def _fill_shared_anonymous(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
    path = map_file(process, vma)
    with OwnedFd(os.open(path, O_PATH | os.O_CLOEXEC)) as fd:
        entry.shmid = context.part(SegmentDump).add(path, os.fstat(fd.fileno()))
    entry.status = AREA_REGULAR | ANON_SHARED
    entry.flags |= MAP_ANONYMOUS


def _fill_sysv(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
    if os.stat(f"/proc/{process.pid}/ns/ipc").st_ino == os.stat("/proc/self/ns/ipc").st_ino:
        raise RefusedError(
            f"{process.describe()} has a System V segment of the host attached ({vma.name}) at {vma.start:#x}",
            hint="run it in an IPC namespace of its own (torpor run, or a container)",
        )
    entry.shmid = vma.inode
    entry.fdflags = _RDWR if "mw" in vma.flags else 0
    entry.status = AREA_REGULAR | AREA_SYSVIPC | ANON_SHARED
    entry.flags |= MAP_ANONYMOUS


def _fill_file(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
    writable = vma.shared and "mw" in vma.flags
    entry.status = AREA_REGULAR | (FILE_SHARED if vma.shared else FILE_PRIVATE)
    entry.fdflags = _RDWR if writable else 0
    entry.shmid = _file_id(process, vma, context, entry.fdflags)
    if context.files.type_of(entry.shmid) == m.fd_types.MEMFD:
        entry.status |= AREA_MEMFD


def _fill_socket(process: DumpProcess, vma: Vma, entry: m.vma_entry, context: DumpContext) -> None:
    """A packet socket's ring: known by the descriptor that the process has, for map_files cannot open a socket."""
    for number in read_fds(process.pid):
        if os.stat(f"/proc/{process.pid}/fd/{number}").st_ino == vma.inode and _is_socket(process, number):
            entry.shmid = context.files.add_descriptor(process, number)[0]
            entry.status = AREA_REGULAR | AREA_SOCKET
            return
    raise RefusedError(
        f"{process.describe()} maps a ring of a socket at {vma.start:#x} that it has no descriptor of",
        hint="have it keep the socket open, or unmap the ring",
    )


def _is_socket(process: DumpProcess, number: int) -> bool:
    return os.readlink(f"/proc/{process.pid}/fd/{number}").startswith("socket:")


def _file_id(process: DumpProcess, vma: Vma, context: DumpContext, flags: int) -> int:
    """Dump the file, once for all mappings of it that need it in the same way."""
    key = ("map", process.ids.mnt_ns_id, vma.device, vma.inode, flags)
    if context.files.has(key):
        return context.files.opened_id(key)
    path = map_file(process, vma)
    with OwnedFd(os.open(path, O_PATH | os.O_CLOEXEC)) as fd:
        fdinfo = ["pos:\t0", f"flags:\t{flags:o}"]
        file = OpenFile(process, -1, fd.fileno(), os.readlink(path), os.fstat(fd.fileno()), fdinfo)
        return context.files.add_opened(key, file)


def map_file(process: DumpProcess, vma: Vma) -> str:
    """The link in /proc that opens what *vma* maps."""
    return f"/proc/{process.pid}/map_files/{vma.start:x}-{vma.end:x}"


def _is_shared_anonymous(vma: Vma) -> bool:
    if not vma.shared or not vma.is_file:
        return False
    named = vma.name in _ANON_SHMEM or vma.name.startswith("[anon_shmem:")
    return named and (vma.device == sharedmem.internal_device() or "ht" in vma.flags)


def _is_private_huge(vma: Vma) -> bool:
    return not vma.shared and "ht" in vma.flags and vma.name == "/anon_hugepage (deleted)"


def _is_sysv(vma: Vma) -> bool:
    return vma.shared and vma.is_file and vma.name.startswith(_SYSV) and vma.name.endswith(" (deleted)")


_dump_ring = late("torpor.objects.memory.aio", "dump")
_fill_anonymous = _without_file(AREA_REGULAR)

BACKINGS: tuple[Backing, ...] = (
    Backing("vsyscall", lambda vma: vma.is_vsyscall, _without_file(AREA_VSYSCALL)),
    Backing("vdso", lambda vma: vma.is_vdso, _without_file(AREA_REGULAR | AREA_VDSO)),
    Backing("vvar", lambda vma: vma.is_vvar, _without_file(AREA_REGULAR | AREA_VVAR)),
    Backing("heap", lambda vma: vma.name == "[heap]", _without_file(AREA_REGULAR | AREA_HEAP)),
    Backing("private huge pages", _is_private_huge, _without_file(AREA_REGULAR)),
    Backing(
        "AIO ring",
        lambda vma: vma.is_aio_ring,
        lambda process, vma, entry, session: _dump_ring(process, vma, entry),
    ),
    Backing(
        "io_uring",
        lambda vma: vma.name.startswith("anon_inode:[io_uring]"),
        _refuse("a ring of io_uring", "have the program close its io_uring instances, or use another I/O backend"),
    ),
    Backing(
        "BPF map",
        lambda vma: vma.name.startswith("anon_inode:bpf"),
        _refuse("a BPF map", "have the program unmap it, and use bpf(2) instead"),
    ),
    Backing("ring of a socket", lambda vma: vma.name.startswith("socket:["), _fill_socket),
    Backing(
        "device memory",
        lambda vma: vma.is_file and bool(vma.flags & _DEVICE_FLAGS),
        _refuse("device memory", "close the device before the checkpoint"),
    ),
    Backing("System V shared memory", _is_sysv, _fill_sysv),
    Backing("shared anonymous memory", _is_shared_anonymous, _fill_shared_anonymous),
    Backing("file", lambda vma: vma.is_file, _fill_file),
    Backing("private anonymous memory", lambda vma: True, _fill_anonymous),
)
