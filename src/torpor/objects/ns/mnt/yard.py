"""The yard: a mount namespace of a thread of ours, in which mounts are made before they go where they belong.

Only what is mounted somewhere in the caller's own namespace can be bound or be given a group, and a file system shall
be made once for all namespaces that mount it.  So all of them lie here until all is done; nobody else sees it, and it
ends with the thread.

A kernel without mount_setattr(2) (before 5.12) changes by mount(2) what is mounted in the namespace of the thread, by
the name that a descriptor has in /proc.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from torpor.base.fds import OwnedFd
from torpor.kernel import mount as mounts
from torpor.kernel.namespaces import CLONE_NEWNS, setns, unshare
from torpor.kernel.uapi.fcntl import AT_FDCWD


class Yard:
    """To be made, and used, by one thread that ends afterwards.

    Until ``close_off`` the thread sees our mounts under our root, with their propagation.
    """

    def __init__(self) -> None:
        unshare(CLONE_NEWNS)
        self._names = OwnedFd(os.open("/proc/thread-self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self._home = OwnedFd(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        self._top = -1
        self._n_places = 0
        self._fds: list[int] = []

    def close_off(self) -> None:
        """Stop sharing mounts with others, and lay out the place where mounts are put."""
        self.enter()
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        context = mounts.fsopen("tmpfs")
        try:
            mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
            self._top = self.keep(mounts.fsmount(context, 0))
        finally:
            os.close(context)
        # Not over the root, for /proc and devices are looked up here.
        place = next(path for path in ("/sys", "/mnt", "/run", "/tmp", "/") if os.path.isdir(path))
        mounts.move_mount(self._top, AT_FDCWD, place)

    def enter(self) -> None:
        """Go back into the yard from wherever the thread is."""
        setns(self._home.fileno(), CLONE_NEWNS)

    def keep(self, fd: int) -> int:
        """Close *fd* at the end; *fd* itself."""
        self._fds.append(fd)
        return fd

    def put(self, fd: int) -> None:
        """Attach the detached mount *fd* somewhere in the yard, where the thread is."""
        name = str(self._n_places)
        self._n_places += 1
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(name, dir_fd=self._top)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._top))
        mounts.move_mount(fd, self._top, name)

    def set_flags(self, fd: int, flags: int) -> None:
        """Give the mount *fd*, which is in the namespace of the thread, these of MS_*, and no others."""
        attributes = mounts.attributes_of(flags)
        if not _is_done(lambda: mounts.set_attributes(fd, attributes)):
            times = flags & (mounts.MS_NOATIME | mounts.MS_RELATIME) or mounts.MS_STRICTATIME
            self._mount(fd, mounts.MS_REMOUNT | mounts.MS_BIND | flags & mounts.MS_OF_MOUNT | times)

    def set_propagation(self, fd: int, kind: int) -> None:
        """Make the mount *fd*, which is in the namespace of the thread, private, shared, a slave or unbindable."""
        if not _is_done(lambda: mounts.set_attributes(fd, propagation=kind)):
            self._mount(fd, kind)

    def make_private(self, fd: int) -> int:
        """The detached mount *fd*, or a copy in its place, in no group."""
        if _is_done(lambda: mounts.set_attributes(fd, propagation=mounts.MS_PRIVATE)):
            return fd
        self.put(self.keep(fd))
        self._mount(fd, mounts.MS_PRIVATE)
        return mounts.open_tree(fd, "")

    def _mount(self, fd: int, flags: int) -> None:
        os.fchdir(self._names.fileno())
        try:
            mounts.mount(None, str(fd), None, flags)
        finally:
            os.chdir("/")

    def close(self) -> None:
        """Let go of what was made here; what is mounted elsewhere stays."""
        for fd in self._fds:
            os.close(fd)
        self._home.close()
        self._names.close()


def _is_done(change: Callable[[], None]) -> bool:
    """Whether this kernel knows the call."""
    try:
        change()
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True
