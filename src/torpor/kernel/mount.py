"""Mounts: mount(2), and the calls by descriptor (5.2 and later): open_tree, move_mount, fsopen, fsconfig, fsmount.

Those by descriptor say exactly which mount is meant, whatever lies on top of it and whatever its path is.
"""

from __future__ import annotations

import os
import struct

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import AT_EMPTY_PATH
from torpor.kernel.uapi.mount import MOVE_MOUNT_SET_GROUP

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2
#: Of statfs(2)'s f_type.
OVERLAYFS = 0x794C7630

AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

#: Of the flags, those that are a mount's own and no matter of times.
MS_OF_MOUNT = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NODIRATIME | MS_NOSYMFOLLOW

_ATTR_OF_MS = (
    (MS_RDONLY, MOUNT_ATTR_RDONLY), (MS_NOSUID, MOUNT_ATTR_NOSUID), (MS_NODEV, MOUNT_ATTR_NODEV),
    (MS_NOEXEC, MOUNT_ATTR_NOEXEC), (MS_NODIRATIME, MOUNT_ATTR_NODIRATIME), (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
)  # fmt: skip


def _text(value: str | None) -> tuple[int, bytearray | None]:
    if value is None:
        return 0, None
    buffer = bytearray(os.fsencode(value) + b"\0")
    return address_of(buffer), buffer


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2) at *target*, with MS_* as *flags*; None is a null pointer.  OSError."""
    words = [_text(value) for value in (source, target, fstype, data)]
    syscall(f"mount {target}", nr.mount, words[0][0], words[1][0], words[2][0], flags, words[3][0])


def filesystem_type(path: str) -> int:
    """The number of the file system that *path* is on: f_type of statfs(2), ``*_SUPER_MAGIC``.  OSError."""
    at, _keep = _text(path)
    buffer = bytearray(120)
    syscall(f"statfs {path}", nr.statfs, at, address_of(buffer))
    return int.from_bytes(buffer[:8], "little")


def filesystem_type_of(fd: int) -> int:
    """The number of the file system that *fd* is on: f_type of fstatfs(2), ``*_SUPER_MAGIC``.  OSError."""
    buffer = bytearray(120)
    syscall("fstatfs", nr.fstatfs, fd, address_of(buffer))
    return int.from_bytes(buffer[:8], "little")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2) of what is mounted at *target*, with MNT_* and UMOUNT_* as *flags*.  OSError."""
    at, _keep = _text(target)
    syscall(f"umount {target}", nr.umount2, at, flags)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2): *new* becomes the root of the mount namespace, whose old one is put at *old*.  OSError."""
    new_at, _keep_new = _text(new)
    old_at, _keep_old = _text(old)
    syscall("pivot_root", nr.pivot_root, new_at, old_at)


def open_tree(directory: int, path: str, *, clone: bool = True, recursive: bool = False) -> int:
    """A descriptor of the mount at *path*; with *clone*, of a detached copy (a bind mount to be)."""
    flags = os.O_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    at, _keep = _text(path)
    return syscall(f"open_tree {path}", nr.open_tree, directory & _MASK, at, flags)


def move_mount(fd: int, directory: int, path: str) -> None:
    """Attach the detached mount *fd* at *path* below *directory* ("" for the directory itself)."""
    empty, _keep_empty = _text("")
    at, _keep = _text(path)
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    syscall(f"move_mount {path}", nr.move_mount, fd, empty, directory & _MASK, at, flags)


def join_group(source: int, target: int) -> None:
    """Give the private mount *target* the peer group and master of *source*, of the same file system (5.15)."""
    empty, _keep = _text("")
    flags = MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount(SET_GROUP)", nr.move_mount, source, empty, target, empty, flags)


def set_attributes(fd: int, attributes: int = 0, *, propagation: int = 0) -> None:
    """mount_setattr(2) (5.12): the mount's flags, all of them, and its propagation type unless 0."""
    cleared = 0x20008F | MOUNT_ATTR__ATIME if not propagation else 0
    packed = bytearray(struct.pack("<QQQQ", attributes, cleared, propagation, 0))
    empty, _keep = _text("")
    syscall("mount_setattr", nr.mount_setattr, fd, empty, AT_EMPTY_PATH, address_of(packed), len(packed))


def attributes_of(flags: int) -> int:
    """The MOUNT_ATTR_* of ``set_attributes`` that mean the same as the MS_* in *flags*.

    What says neither noatime nor relatime is strictatime, as mountinfo shows a mount's flags.
    """
    found = sum(attribute for flag, attribute in _ATTR_OF_MS if flags & flag)
    if flags & MS_NOATIME:
        return found | MOUNT_ATTR_NOATIME
    return found if flags & MS_RELATIME else found | MOUNT_ATTR_STRICTATIME


def fsopen(fstype: str) -> int:
    """A context for a new file system."""
    at, _keep = _text(fstype)
    return syscall(f"fsopen {fstype}", nr.fsopen, at, 1)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set an option, or create the file system."""
    key_at, _keep_key = _text(key)
    value_at, _keep_value = _text(value)
    syscall(f"fsconfig {key or 'create'}", nr.fsconfig, fd, command, key_at, value_at, 0)


def make_read_only(fd: int) -> None:
    """Make the file system of the mount *fd* read-only, for all mounts of it."""
    empty, _keep = _text("")
    context = syscall("fspick", nr.fspick, fd, empty, _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        fsconfig(context, FSCONFIG_SET_FLAG, "ro")
        fsconfig(context, _FSCONFIG_CMD_RECONFIGURE)
    finally:
        os.close(context)


def fsmount(fd: int, attributes: int) -> int:
    """A detached mount of the file system made in the context *fd*."""
    return syscall("fsmount", nr.fsmount, fd, 1, attributes)


_MASK = (1 << 64) - 1
