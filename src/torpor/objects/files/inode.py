"""What of an inode CRIU's messages have no field for: times to the nanosecond, extended attributes.

Of deleted files and memfds, which are made anew; the message is ``torpor_inode``.
"""

from __future__ import annotations

import errno
import os

from torpor.base import log
from torpor.base.errors import TRUST_IT, NotPermittedError
from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.objects.session import RestoreContext

_FILE_CAPABILITIES = "security.capability"


def fill(entry: m.torpor_inode, path: str, info: os.stat_result) -> None:
    """Note what *path*, of which *info* was read, has."""
    entry.atime_ns, entry.mtime_ns = info.st_atime_ns, info.st_mtime_ns
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
