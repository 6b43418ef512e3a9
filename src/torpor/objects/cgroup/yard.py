"""Getting at the hierarchies, wherever they are mounted, or if they are not mounted at all.

A hierarchy is mounted anew, detached from everybody's tree of mounts, and reached by the descriptor.  Where that is not
permitted, the place where it is mounted serves; and a directory given by ``--cgroup-yard`` before all.
"""

from __future__ import annotations

import os

from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd
from torpor.kernel import mount as mounts
from torpor.objects.cgroup.model import V2, describe

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Yard:
    """Descriptors of the hierarchies' roots, opened when first asked for."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._open: dict[str, OwnedFd] = {}

    def root_fd(self, hierarchy: str) -> int:
        """The root directory of *hierarchy*, or of what our cgroup namespace shows of it; it stays ours.

        TorporError where this kernel has no such hierarchy.
        """
        if hierarchy not in self._open:
            self._open[hierarchy] = OwnedFd(self._in_yard(hierarchy) if self._path else _open(hierarchy))
        return self._open[hierarchy].fileno()

    def open_dir(self, hierarchy: str, path: str) -> int:
        """The control group *path*, which the caller closes.  OSError."""
        return os.open(path.lstrip("/") or ".", _DIRECTORY, dir_fd=self.root_fd(hierarchy))

    def write(self, hierarchy: str, path: str, name: str, value: str) -> None:
        """Write one of its files.  OSError."""
        fd = os.open(f"{path.lstrip('/') or '.'}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.root_fd(hierarchy))
        try:
            os.write(fd, value.encode(errors="surrogateescape"))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close()

    def _in_yard(self, hierarchy: str) -> int:
        path = os.path.join(self._path, "unified" if hierarchy == V2 else hierarchy.removeprefix("name="))
        try:
            return os.open(path, _DIRECTORY)
        except OSError as error:
            raise TorporError(
                f"{path}: {error.strerror}", hint=f"--cgroup-yard must hold the hierarchy {describe(hierarchy)} there"
            ) from None


def _open(hierarchy: str) -> int:
    try:
        return _mount(hierarchy)
    except OSError as error:
        place = _find_mounted(hierarchy)
        if place is None:
            raise TorporError(
                f"the control group hierarchy {describe(hierarchy)} cannot be mounted: {error.strerror}",
                hint="this kernel has it differently or not at all; --manage-cgroups=ignore goes on without",
            ) from None
    return os.open(place, _DIRECTORY)


def _mount(hierarchy: str) -> int:
    """A detached mount of it."""
    context = mounts.fsopen("cgroup2" if hierarchy == V2 else "cgroup")
    try:
        for word in hierarchy.split(",") if hierarchy else ():
            key, equals, value = word.partition("=")
            if equals:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
            else:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_FLAG, key)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        made = mounts.fsmount(context, 0)
    finally:
        os.close(context)
    try:
        return os.open(".", _DIRECTORY, dir_fd=made)
    finally:
        os.close(made)


def _find_mounted(hierarchy: str) -> str | None:
    from torpor.kernel.procfs.mountinfo import read_mountinfo

    wanted = set(hierarchy.split(",")) if hierarchy else set()
    for mount in read_mountinfo("self"):
        if mount.root != "/" or mount.fstype != ("cgroup" if hierarchy else "cgroup2"):
            continue
        if wanted <= set(mount.super_options.split(",")):
            return mount.point
    return None
