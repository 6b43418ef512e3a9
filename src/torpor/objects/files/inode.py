"""What of an inode CRIU's messages have no field for: times to the nanosecond, extended attributes, flags of chattr(1).

Of deleted files and memfds, which are made anew; the message is ``torpor_inode``.  By a descriptor of O_PATH nobody
learns the flags.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from torpor.base import log
from torpor.base.errors import TRUST_IT, NotPermittedError
from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.kernel.uapi.fs import (
    FS_APPEND_FL,
    FS_IMMUTABLE_FL,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
    FS_NOATIME_FL,
    FS_NODUMP_FL,
)
from torpor.objects.session import RestoreContext, RestoreStage

#: Those that a tmpfs has, too.
_FLAGS = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL
_FILE_CAPABILITIES = "security.capability"


def fill(entry: m.torpor_inode, fd: int, info: os.stat_result) -> None:
    """Note what the file behind *fd*, of which *info* was read, has."""
    entry.atime_ns, entry.mtime_ns = info.st_atime_ns, info.st_mtime_ns
    if _has_flags(info.st_mode) and (flags := _read_flags(fd) & _FLAGS):
        entry.flags = flags
    path = f"/proc/self/fd/{fd}"
    try:
        keys = os.listxattr(path)
    except OSError:
        return  # the file system has none
    for key in keys:
        entry.xattr.add(name=key, value=os.getxattr(path, key))


def restore(entry: m.torpor_inode, path: str, what: str, context: RestoreContext) -> None:
    """Give *path*, whose owner and mode are right, the same; NotPermittedError for rights that are not to be given."""
    for each in entry.xattr:
        if each.name == lsm.XATTR:
            _label(path, each.value, what, context)
            continue
        if each.name == _FILE_CAPABILITIES and not context.policies.files.special_files:
            raise NotPermittedError(f"{what}: torpor_inode: file capabilities are asked for", hint=TRUST_IT)
        try:
            os.setxattr(path, each.name, each.value)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno or errno.EINVAL) if isinstance(error, OSError) else str(error)
            log.warn(f"{what}: its attribute {each.name} is lost: {why}")
    if entry.HasField("mtime_ns"):
        os.utime(path, ns=(entry.atime_ns, entry.mtime_ns))
    if entry.flags & _FLAGS and _has_flags(os.stat(path).st_mode):
        fd = context.keep(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        context.at(RestoreStage.OPENED, lambda: _set_flags(fd.fileno(), entry.flags & _FLAGS, what))


def _has_flags(mode: int) -> bool:
    """Of others the driver is asked, or nobody."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _read_flags(fd: int) -> int:
    try:
        return int(struct.unpack("I", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0])
    except OSError:
        return 0  # the file system has none


def _set_flags(fd: int, flags: int, what: str) -> None:
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("I", _read_flags(fd) & ~_FLAGS | flags))
    except OSError as error:
        log.warn(f"{what}: its flags (chattr) are lost: {error.strerror}")


def _label(path: str, label: bytes, what: str, context: RestoreContext) -> None:
    """SELinux's: what is made has that of its maker and place, which often is the same."""
    if context.new_labels is None or lsm.active() != lsm.SELINUX:
        return
    new = lsm.relabel_bytes(label, context.new_labels)
    try:
        if os.getxattr(path, lsm.XATTR) != new:
            os.setxattr(path, lsm.XATTR, new)
    except (OSError, ValueError) as error:
        log.warn(f"{what}: its label {label!r} is lost: {error}")
