"""memfd_create(2): memory behind a descriptor, with seals, mapped or not.

Kernel view
    A nameless file of the kernel's own tmpfs or hugetlbfs mount; F_GET_SEALS; ``/memfd:NAME (deleted)`` as its link.
    Shared anonymous memory that a descriptor (of map_files) or a private mapping reaches is the same thing,
    ``/dev/zero (deleted)``.
Image
    ``memfd_file_entry`` per description, ``memfd_inode_entry`` per file; the contents are a segment's.
Restore
    memfd_create, mode, size, contents, extended attributes, times; the seals once every mapping is made, since
    F_SEAL_FUTURE_WRITE leaves alone the writable mappings that there are.
Limits
    An attribute that the kernel refuses (before 6.6) is lost with a warning.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import load_all
from torpor.kernel import sharedmem
from torpor.kernel.uapi.fcntl import F_ADD_SEALS, F_GET_SEALS, F_SEAL_SEAL, F_SEAL_WRITE, O_PATH
from torpor.kernel.uapi.memfd import MFD_ALLOW_SEALING, MFD_HUGETLB
from torpor.objects.files import fown
from torpor.objects.files import inode as inodes
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.memory import segments
from torpor.objects.memory.segments import SegmentDump
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

MFD_EXEC = 0x10
_PREFIX = "/memfd:"
_DELETED = " (deleted)"
_DEV_ZERO = "/dev/zero"
_HUGE_SHIFT = 26
_MAX_NAME = 249
_MAX_INODE_ID = (1 << 31) - 1


def matches(file: OpenFile) -> bool:
    """Files of the kernel's own mounts of shared memory, but for System V's."""
    if not stat.S_ISREG(file.stat.st_mode) or not file.target.endswith(_DELETED):
        return False
    if file.target.startswith("/SYSV"):
        return False
    if file.stat.st_dev == sharedmem.internal_device():
        return True
    return file.target.startswith(_PREFIX) and file.stat.st_nlink == 0 and os.major(file.stat.st_dev) == 0


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.memfd``, and add the inode's entry the first time."""
    memfd = entry.memfd
    memfd.id, memfd.flags = entry.id, file.flags
    memfd.pos = 0 if file.flags & O_PATH else file.pos
    fown.fill(memfd.fown, file)
    path = f"/proc/self/fd/{file.fd}"
    shmid = context.part(SegmentDump).add(path, file.stat)
    memfd.inode_id = shmid & _MAX_INODE_ID  # CRIU takes it for a signed number
    if context.once(("memfd", shmid)):
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            context.image("MEMFD_INODE").add(_inode(file, fd.fileno(), shmid, memfd.inode_id))


def _inode(file: OpenFile, fd: int, shmid: int, inode_id: int) -> m.memfd_inode_entry:
    info = file.stat
    name = file.target.removesuffix(_DELETED).removeprefix(_PREFIX)
    user, group = file.process.idmaps.inside(info.st_uid, info.st_gid)
    inode = m.memfd_inode_entry(
        name=name, uid=user, gid=group, size=info.st_size, shmid=shmid, inode_id=inode_id,
        mode=info.st_mode, seals=fcntl.fcntl(fd, F_GET_SEALS),
    )  # fmt: skip
    inodes.fill(inode.torpor_inode, fd, info)
    if info.st_dev != sharedmem.internal_device():
        inode.hugetlb_flag = MFD_HUGETLB | (info.st_blksize.bit_length() - 1) << _HUGE_SHIFT
    return inode


class MemfdRestore:
    """Which files have given away the description that memfd_create made."""

    def __init__(self, context: RestoreContext) -> None:
        self.given: set[int] = set()


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A description of the file, which the first to ask makes.

    The first that is open for both is memfd_create's own: any other for writing would forbid execveat(2).
    """
    memfd = entry.memfd
    keeper = open_inode(memfd.inode_id, context)
    given = context.part(MemfdRestore).given
    if memfd.flags & (os.O_ACCMODE | O_PATH) == os.O_RDWR and memfd.inode_id not in given:
        given.add(memfd.inode_id)
        fd = fcntl.fcntl(keeper, fcntl.F_DUPFD_CLOEXEC, 3)
        fcntl.fcntl(fd, fcntl.F_SETFL, memfd.flags)
    else:
        fd = os.open(f"/proc/self/fd/{keeper}", memfd.flags & ~os.O_TRUNC | os.O_CLOEXEC)
    if memfd.pos and not memfd.flags & O_PATH:
        os.lseek(fd, memfd.pos, os.SEEK_SET)
    return fd


def open_inode(inode_id: int, context: RestoreContext) -> int:
    """The file itself, opened for both, borrowed."""
    inode = _inode_of(inode_id, context)
    return context.files.shared(("segment", inode.shmid), lambda: _make(inode, context))


def _inode_of(inode_id: int, context: RestoreContext) -> m.memfd_inode_entry:
    found = context.part(_Inodes).by_id.get(inode_id)
    if found is None:
        raise ImageError(f"memfd.img has no inode {inode_id}")
    return found


class _Inodes:
    """Those of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        self.by_id = {inode.inode_id: inode for inode in load_all(context.store, kinds.MEMFD_INODE)}


def _make(inode: m.memfd_inode_entry, context: RestoreContext) -> int:
    is_anonymous = inode.name == _DEV_ZERO and inode.seals == F_SEAL_SEAL and not inode.hugetlb_flag
    fd = sharedmem.create_anonymous(inode.size) if is_anonymous and inode.size else _create(inode)
    try:
        if not is_anonymous:
            os.ftruncate(fd, inode.size)
            os.fchown(fd, *context.idmaps.outside(inode.uid, inode.gid))
            if inode.HasField("mode"):
                os.fchmod(fd, stat.S_IMODE(inode.mode))
        segments.restore(context.store, inode.shmid, fd, inode.size)
        if inode.HasField("torpor_inode") and not is_anonymous:
            inodes.restore(inode.torpor_inode, f"/proc/self/fd/{fd}", f"memfd {inode.name!r}", context)
    except BaseException:
        os.close(fd)
        raise
    if not is_anonymous:
        _seal(fd, inode.seals, context)
    return fd


def _create(inode: m.memfd_inode_entry) -> int:
    flags = MFD_ALLOW_SEALING | inode.hugetlb_flag
    name = inode.name.encode(errors="surrogateescape")
    if len(name) > _MAX_NAME or b"\0" in name:
        raise ImageError(f"memfd.img: the name of inode {inode.inode_id} is too long")
    try:
        return _memfd_create(inode.name, flags)
    except OSError as error:
        hint = "reserve huge pages (vm.nr_hugepages)" if inode.hugetlb_flag else None
        raise RestoreError(f"memfd {inode.name!r} cannot be made: {error}", hint=hint) from error


def _memfd_create(name: str, flags: int) -> int:
    try:
        return os.memfd_create(name, flags | MFD_EXEC | os.MFD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags | os.MFD_CLOEXEC)  # before 6.3


def _seal(fd: int, seals: int, context: RestoreContext) -> None:
    """F_SEAL_WRITE before anything is mapped, when it cannot fail; the others when everything is."""
    if seals & F_SEAL_WRITE:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)
    later = seals & ~F_SEAL_WRITE
    if later:
        context.at(RestoreStage.OPENED, lambda: _add_seals(fd, later))


def _add_seals(fd: int, seals: int) -> None:
    fcntl.fcntl(fd, F_ADD_SEALS, seals)


def inherit_name(entry: m.file_entry, context: RestoreContext) -> str:
    """``memfd:NAME``, as its link says."""
    return f"memfd:{_inode_of(entry.memfd.inode_id, context).name}"


KIND = FileKind("memfd", m.fd_types.MEMFD, matches, dump, restore, inherit_name=inherit_name)
