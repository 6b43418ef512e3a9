"""Files by which the machine itself, or a process outside of the tree, is set: in proc, sysfs, cgroupfs and their like.

Kernel view
    fstatfs(2) tells the file system; where in it a file lies, the directories above it.
Image
    None of its own: ``reg_file_entry`` names such a file like any other.
Restore
    Whoever restores opens files with its own rights, for tasks that may have less.  So a file of these is opened for
    writing only where it sets a process of the tree (``/proc/PID`` of its own), a device (``/sys/devices`` but for
    those of the system as a whole), or what a control group's own tasks may use.
Limits
    Others are refused, before the freeze and at a restore: hand them in (``--external file[]``, ``--inherit-fd``).
    What a file had been told through a description (a trigger in ``/proc/pressure`` or ``memory.pressure``) no one can
    ask for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from torpor.base.fds import OwnedFd
from torpor.kernel.mount import filesystem_type
from torpor.kernel.uapi import magic
from torpor.kernel.uapi.fcntl import O_PATH

_OF_THE_MACHINE = {
    magic.BINFMTFS_MAGIC: "binfmt_misc",
    magic.BPF_FS_MAGIC: "bpf",
    magic.DEBUGFS_MAGIC: "debugfs",
    magic.EFIVARFS_MAGIC: "efivarfs",
    magic.PSTOREFS_MAGIC: "pstore",
    magic.SECURITYFS_MAGIC: "securityfs",
    magic.SELINUX_MAGIC: "selinuxfs",
    magic.SMACK_MAGIC: "smackfs",
    magic.TRACEFS_MAGIC: "tracefs",
    0x62656570: "configfs",  # fs/configfs/mount.c, in no header
}
_CGROUP = (magic.CGROUP_SUPER_MAGIC, magic.CGROUP2_SUPER_MAGIC)
_KINDS = frozenset((*_OF_THE_MACHINE, *_CGROUP, magic.PROC_SUPER_MAGIC, magic.SYSFS_MAGIC))
#: What a control group does to others than its tasks, or for good.
_GROUP_ACTS = frozenset(("cgroup.kill", "devices.allow", "devices.deny", "release_agent"))
_PRESSURE = ".pressure"
#: The inode of the root directory, of proc and of sysfs.
_ROOT_INODE = 1
_DIRECTORY = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def writes(flags: int) -> bool:
    """Whether a file opened with *flags* can be written to."""
    return not flags & O_PATH and flags & os.O_ACCMODE != os.O_RDONLY


class Kinds:
    """Of which kind file systems are, each looked at once."""

    def __init__(self, _session: object = None) -> None:
        self._of_device: dict[int, int] = {}

    def find(self, device: int, path: str) -> int:
        """The kind of *device*, on which *path* is, if files on it may set something; else 0."""
        if os.major(device):
            return 0
        if device not in self._of_device:
            kind = filesystem_type(path)
            self._of_device[device] = kind if kind in _KINDS else 0
        return self._of_device[device]


def set_by(kind: int, device: int, name: str, open_directory: Callable[[], int]) -> str | int | None:
    """What is set by writing to *name* of the file system *device*: a process, by its number in that proc, or text.

    None: nothing beyond the file itself.  *open_directory* opens what *name* is in; OSError if it cannot.
    """
    if kind not in _KINDS:
        return None
    if kind in _OF_THE_MACHINE:
        return f"this machine ({_OF_THE_MACHINE[kind]})"
    if kind in _CGROUP:
        return "control groups" if name in _GROUP_ACTS else None
    above: list[int] = []
    try:
        with suppress(OSError):
            _climb(open_directory(), device, above)
        if kind == magic.SYSFS_MAGIC:
            return None if _is_of_a_device(above) else "this machine (sysfs)"
        pid = _process_of(above)
        return "this machine (proc)" if pid is None else pid
    finally:
        for each in above:
            os.close(each)


def has_trigger(kind: int, name: str) -> bool:
    """Whether whoever writes to the file tells it what to wait for (Documentation/accounting/psi.rst)."""
    return kind in _CGROUP and name.endswith(_PRESSURE)


def _climb(directory: int, device: int, above: list[int]) -> None:
    """Add *directory* and those above it to *above*, as far as they are of the file system *device*."""
    above.append(directory)
    at = os.fstat(directory)
    while at.st_dev == device and at.st_ino != _ROOT_INODE:
        above.append(os.open("..", _DIRECTORY, dir_fd=above[-1]))
        up = os.fstat(above[-1])
        if (up.st_dev, up.st_ino) == (at.st_dev, at.st_ino):
            return
        at = up
    if at.st_dev != device:
        os.close(above.pop())


def _process_of(above: list[int]) -> int | None:
    """The process in whose directory of proc they lie."""
    for fd in reversed(above):
        with suppress(OSError), OwnedFd(os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)) as status:
            for line in os.read(status.fileno(), 1 << 12).split(b"\n"):
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    return None


def _is_of_a_device(above: list[int]) -> bool:
    if not above or os.fstat(above[-1]).st_ino != _ROOT_INODE:
        return False
    inodes = [os.fstat(fd).st_ino for fd in above]
    devices, system = (os.stat(name, dir_fd=above[-1]).st_ino for name in ("devices", "devices/system"))
    return devices in inodes and system not in inodes
