"""fanotify(7): marks on files, mounts and file systems.

Kernel view
    ``fanotify`` lines in fdinfo: one with the flags of fanotify_init(2), one a mark.
Image
    ``fanotify_file_entry`` with one ``fanotify_mark_entry`` a mark: of an inode with its handle and path, of a mount
    with its path.
Restore
    fanotify_init, then fanotify_mark twice a mark: what is reported, what is ignored.
Limits
    Marks of file systems are refused.  So are groups that decide about accesses (FAN_CLASS_CONTENT and above): whoever
    opened a file meanwhile would wait for ever.  Events that wait to be read are lost, with a warning.
"""

from __future__ import annotations

import fcntl
import os

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text
from torpor.kernel.arch import nr
from torpor.kernel.procfs.mountinfo import Mount, read_mountinfo
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fanotify import FAN_MARK_IGNORE
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.ioctls import FIONREAD
from torpor.objects.files import fown, watched
from torpor.objects.files.model import FileKind, OpenFile, Placed
from torpor.objects.files.paths import open_below, set_name
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

_LINK = "anon_inode:[fanotify]"
_FAN_CLASSES = 0xC
_MARK_ADD, _MARK_MOUNT, _MARK_IGNORED = 0x1, 0x10, 0x20
#: FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE: what fdinfo tells of a mark.
_KEPT = 0x40 | 0x200 | 0x400


def matches(file: OpenFile) -> bool:
    """Whether it is a group of fanotify_init(2), by its link."""
    return file.target == _LINK


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.ffy``: the flags of the group, and its marks.  Events that wait are lost, with a warning.

    RefusedError for a group that decides about accesses, and for marks that cannot be carried.
    """
    group = entry.ffy
    group.id, group.flags = entry.id, file.flags
    fown.fill(group.fown, file)
    if lost := _waiting(file):
        log.warn(lost)
    for line in file.fdinfo:
        if line.startswith("fanotify "):
            _dump_line(file, dict(part.split(":", 1) for part in line.split()[1:]), group, context)
    if group.faflags & _FAN_CLASSES:
        raise file.refuse("a fanotify group that allows or denies access to files", hint="close it and try again")


def check(file: OpenFile, context: DumpContext) -> None:
    """Say what is lost."""
    if file.fd >= 0 and (lost := _waiting(file)):
        context.noticed.lose(lost)


def _waiting(file: OpenFile) -> str:
    n_bytes = int.from_bytes(fcntl.ioctl(file.fd, FIONREAD, bytes(4)), "little")
    return f"{file.describe()}: fanotify events are waiting to be read; they will be lost" if n_bytes else ""


def _dump_line(file: OpenFile, fields: dict[str, str], group: m.fanotify_file_entry, context: DumpContext) -> None:
    if "flags" in fields:
        group.faflags, group.evflags = int(fields["flags"], 16), int(fields["event-flags"], 16)
        return
    mark = group.mark.add()
    mark.id = 0
    mark.mflags, mark.mask, mark.ignored_mask = (int(fields[name], 16) for name in ("mflags", "mask", "ignored_mask"))
    if "ino" in fields:
        mark.type, mark.s_dev = m.mark_type.INODE, int(fields["sdev"], 16)
        inode = mark.ie
        inode.i_ino = int(fields["ino"], 16)
        handle = watched.fill_handle(inode.f_handle, fields)
        watched.find(file, mark.s_dev, inode.i_ino, inode.f_handle, handle, context)
    elif "mnt_id" in fields:
        mount = _mount(file, int(fields["mnt_id"], 16))
        mark.type, mark.s_dev = m.mark_type.MOUNT, mount.major << 20 | mount.minor
        mark.me.mnt_id = mount.mount_id
        set_name(mark.me, "path", mount.point)
    else:
        raise file.refuse("a fanotify mark of a whole file system is not supported", hint="mark its mount instead")


def _mount(file: OpenFile, mount_id: int) -> Mount:
    for mount in read_mountinfo(file.process.pid):
        if mount.mount_id == mount_id:
            return mount
    raise file.refuse(f"the mount that it watches (mount {mount_id}) is not in its mount namespace")


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A group without marks; they come when nothing is opened or closed any more, which they would tell of."""
    group = entry.ffy
    if group.faflags & _FAN_CLASSES:
        raise RestoreError(f"fanotify {entry.id} allows or denies access to files, which cannot be restored")
    # The kernel tells the flags with which it was made, so it is made with those.
    fd = syscall("fanotify_init", nr.fanotify_init, group.faflags, group.evflags)
    os.set_inheritable(fd, False)
    os.set_blocking(fd, not group.flags & os.O_NONBLOCK)
    return fd


def attach(entry: m.file_entry, context: RestoreContext, placed: Placed) -> None:
    """Find what is marked (by O_PATH, which nobody is told of); the marks are added at the end."""
    own = context.keep(os.dup(placed.fd))
    # The oldest first, which fdinfo has last.
    marks = [(mark, context.keep(_open_target(entry.id, mark, context))) for mark in reversed(entry.ffy.mark)]
    context.at(RestoreStage.WATCHED, lambda: _add_marks(own, marks))


def _open_target(ident: int, mark: m.fanotify_mark_entry, context: RestoreContext) -> int:
    if mark.type == m.mark_type.MOUNT:
        return open_below(*context.files.place_of(mark.me.mnt_id, get_text(mark.me.path)), O_PATH)
    if mark.type == m.mark_type.INODE:
        return watched.open_again(mark.s_dev, mark.ie.i_ino, mark.ie.f_handle, context)
    raise ImageError(f"files.img: fanotify {ident} has a mark of type {mark.type}")


def _add_marks(own: OwnedFd, marks: list[tuple[m.fanotify_mark_entry, OwnedFd]]) -> None:
    for mark, target in marks:
        flags = _MARK_ADD | mark.mflags & _KEPT & ~FAN_MARK_IGNORE
        if mark.type == m.mark_type.MOUNT:
            flags |= _MARK_MOUNT
        if mark.mask:
            _mark(own.fileno(), flags, mark.mask, target)
        if mark.ignored_mask:
            how = FAN_MARK_IGNORE if mark.mflags & FAN_MARK_IGNORE else _MARK_IGNORED
            _mark(own.fileno(), flags | how, mark.ignored_mask, target)


def _mark(fd: int, flags: int, mask: int, target: OwnedFd) -> None:
    path = bytearray(f"/proc/self/fd/{target.fileno()}".encode() + b"\0")
    syscall("fanotify_mark", nr.fanotify_mark, fd, flags, mask, 0, address_of(path))


KIND = FileKind("fanotify group", m.fd_types.FANOTIFY, matches, dump, restore, attach, check)
