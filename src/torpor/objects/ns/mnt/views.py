"""Mount namespaces of dumped processes, looked at from a thread of ours in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field, replace
from torpor.kernel import mount as mounts
from torpor.kernel.namespaces import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWUSER, inside, setns, unshare
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.procfs.mountinfo import Mount, parse_mountinfo
from torpor.kernel.signal import SIGSTOP
from torpor.kernel.uapi.fcntl import AT_FDCWD
from torpor.objects.files.paths import places_above

_CGROUPS = ("cgroup", "cgroup2")


@dataclass(frozen=True, slots=True)
class View:
    """A namespace: of the process behind *pidfd*, with its mounts, parents before children.

    *inner* are the ids of mounts of cgroup hierarchies whose roots are told as a cgroup namespace of its own has them;
    *everything* are its mounts with those that are not looked at, but may lie over others.
    """

    pid: Pid
    pidfd: int
    mounts: list[Mount]
    inner: frozenset[int] = frozenset()
    everything: list[Mount] = field(default_factory=list)

    @property
    def root(self) -> Mount:
        """The one whose parent is not among them."""
        ids = {mount.mount_id for mount in self.mounts}
        return next(mount for mount in self.mounts if mount.parent_id not in ids or mount.parent_id == mount.mount_id)


def read_view(pid: Pid, pidfd: int) -> View:
    """The namespace of *pid*."""
    found = read_namespace(pidfd)
    if not _has_own(pid, "cgroup") or not any(mount.fstype in _CGROUPS for mount in found):
        return View(pid, pidfd, found, everything=found)
    # What a new namespace has as its root is mounted in there; what lies above that can only be the host's.
    roots = {
        mount.mount_id: mount.root
        for mount in read_namespace(pidfd, CLONE_NEWCGROUP)
        if mount.fstype in _CGROUPS and not mount.root.startswith("/..")
    }
    shown = [replace(mount, root=roots.get(mount.mount_id, mount.root)) for mount in found]
    return View(pid, pidfd, shown, frozenset(roots), found)


def read_namespace(pidfd: int, more_flags: int = 0) -> list[Mount]:
    """All mounts of the namespace, as seen from its root (the process itself may have another).

    Roots of cgroup mounts are told as the cgroup namespace of the thread has them that reads.
    """
    # The /proc in there need not know of us.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = inside(pidfd, CLONE_NEWNS | more_flags, lambda: _read_own(proc))
    finally:
        os.close(proc)
    return parse_mountinfo(text)


def _read_own(proc: int) -> str:
    fd = os.open("thread-self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with open(fd, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def _has_own(pid: Pid, link: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/{link}") != os.readlink(f"/proc/self/ns/{link}")
    except FileNotFoundError:
        return False  # a kernel without


def open_mount(view: View, mount: Mount) -> int:
    """A detached copy of *mount* alone: what other mounts hide is in it, and what they show is not."""
    above = _above(view, mount)
    if not above and not mount.unbindable:
        return inside(view.pidfd, CLONE_NEWNS, lambda: mounts.open_tree(AT_FDCWD, mount.point))

    def dig() -> int:
        # In a copy of the namespace, which ends with the thread, whatever is in the way can go.
        unshare(CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        for other in reversed(above):
            with suppress(OSError):  # it went with another one
                mounts.unmount(other.point, mounts.MNT_DETACH)
        return mounts.open_tree(AT_FDCWD, mount.point)

    if _has_own(view.pid, "user"):
        # Copies that are made from outside of its user namespace would be locked to each other.
        return _from_child(view.pidfd, dig)
    return inside(view.pidfd, CLONE_NEWNS, dig)


def _from_child(pidfd: int, work: Callable[[], int]) -> int:
    """The descriptor that *work* gives, done by a child of ours in the user and mount namespaces behind *pidfd*.

    A process with several threads cannot enter a user namespace.
    """
    from torpor.kernel import errand

    us = os.getpid()
    read, written = os.pipe2(os.O_CLOEXEC)
    with OwnedFd(read), OwnedFd(written) as writer:

        def go() -> None:
            try:
                setns(pidfd, CLONE_NEWUSER | CLONE_NEWNS)
                errand.go_with(us)
                os.write(written, work().to_bytes(4, "little"))
                os.kill(os.getpid(), SIGSTOP)
            except OSError as error:
                os.write(written, (-(error.errno or 1)).to_bytes(4, "little", signed=True))

        with errand.sent(go) as pid:
            writer.close()
            answer = int.from_bytes(os.read(read, 4) or b"\xff\xff\xff\xff", "little", signed=True)
            if answer < 0:
                raise OSError(-answer, os.strerror(-answer))
            with OwnedFd(open_pidfd(pid)) as child:
                return getfd(child.fileno(), answer)


def _above(view: View, mount: Mount) -> list[Mount]:
    """The mounts that lie over *mount* or over the way to it, with all that is on them at the same place."""
    index = _index_of(view.everything)
    mount = index.by_id[mount.mount_id]
    way = [mount]
    known = {mount.mount_id}
    while (parent := index.by_id.get(way[-1].parent_id)) is not None and parent.mount_id not in known:
        way.append(parent)
        known.add(parent.mount_id)
    # Of each mount on the way, the point on it at which the way goes on.
    goes_on = {mount.mount_id: mount.point}
    for number, parent in enumerate(way[1:]):
        goes_on[parent.mount_id] = way[number].point
    above: dict[int, int] = {}
    left = [(parent, each) for parent, point in goes_on.items() for each in places_above(point)]
    while left:
        for other in index.by_place.get(left.pop(), ()):
            if other.mount_id not in known and other.mount_id not in above:
                above[other.mount_id] = index.order[other.mount_id]
                left += [(other.mount_id, each) for each in places_above(mount.point)]
    return [view.everything[at] for at in sorted(above.values())]


class _Index:
    """Mounts by their id, and by the mount that they are on and their place."""

    def __init__(self, found: list[Mount]) -> None:
        self.mounts = found
        self.by_id = {mount.mount_id: mount for mount in found}
        self.order = {mount.mount_id: number for number, mount in enumerate(found)}
        self.by_place: dict[tuple[int, str], list[Mount]] = {}
        for mount in found:
            self.by_place.setdefault((mount.parent_id, mount.point), []).append(mount)


_last: list[_Index] = []


def _index_of(found: list[Mount]) -> _Index:
    """Made once for a list of mounts, which is asked about each of them."""
    if not _last or _last[0].mounts is not found:
        _last[:] = [_Index(found)]
    return _last[0]
