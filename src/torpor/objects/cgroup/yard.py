"""Getting at the hierarchies, wherever they are mounted, or if they are not mounted at all.

Where a hierarchy is mounted, that mount serves; where it is not, one that is detached from everybody's tree of mounts.
A directory given by ``--cgroup-yard`` comes before both.  (To mount each one anew would do as well, but costs grace
periods of the kernel's, some milliseconds a hierarchy.)
"""

from __future__ import annotations

import os

from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd
from torpor.kernel import mount as mounts
from torpor.kernel.procfs.mountinfo import Mount, parse_line
from torpor.kernel.procfs.small import read_small
from torpor.objects.cgroup.model import V2, describe

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Yard:
    """Descriptors of the hierarchies' roots, opened when first asked for."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._open: dict[str, OwnedFd] = {}
        self._mounts: list[Mount] | None = None

    def root_fd(self, hierarchy: str) -> int:
        """The root directory of *hierarchy*, or of what our cgroup namespace shows of it; it stays ours.

        TorporError where this kernel has no such hierarchy.
        """
        if hierarchy not in self._open:
            self._open[hierarchy] = OwnedFd(self._in_yard(hierarchy) if self._path else self._open_anyhow(hierarchy))
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
        """Close the descriptors of all hierarchies; one that is asked for later is opened anew."""
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

    def _open_anyhow(self, hierarchy: str) -> int:
        if self._mounts is None:
            self._mounts = _read_mounts()
        fd = _open_mounted(self._mounts, hierarchy)
        if fd is not None:
            return fd
        try:
            return _mount(hierarchy)
        except OSError as error:
            raise TorporError(
                f"the control group hierarchy {describe(hierarchy)} cannot be mounted: {error.strerror}",
                hint="this kernel has it differently or not at all; --manage-cgroups=ignore goes on without",
            ) from None


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


def _read_mounts() -> list[Mount]:
    """Mounts of whole hierarchies that can be written to."""
    # Of hundreds of mounts of containers, only those are taken apart that can be meant.
    lines = [line for line in read_small("/proc/thread-self/mountinfo").split("\n") if " - cgroup" in line]
    return [mount for mount in map(parse_line, lines) if mount.root == "/" and "rw" in mount.options]


def _open_mounted(found: list[Mount], hierarchy: str) -> int | None:
    """The root of it where it is mounted; None if it is not."""
    wanted = set(hierarchy.split(",")) if hierarchy else set()
    for mount in found:
        if mount.fstype != ("cgroup" if hierarchy else "cgroup2") or not wanted <= set(mount.super_options.split(",")):
            continue
        try:
            fd = os.open(mount.point, _DIRECTORY)
        except OSError:
            continue
        device = os.fstat(fd).st_dev
        if (os.major(device), os.minor(device)) == mount.device:
            return fd
        os.close(fd)  # something else is mounted over it
    return None
