"""Names of files: as the dumper sees them, as images hold them, and opening them again.

A name in an image is absolute and starts at the root of the mount namespace, whatever root the task itself has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Container, Iterator
from contextlib import suppress

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.base.typed import TYPE_CHECKING
from torpor.images import messages as m
from torpor.images.text import set_text
from torpor.kernel.arch import nr
from torpor.kernel.mount import filesystem_type_of
from torpor.kernel.namespaces import CLONE_NEWNS, inside
from torpor.kernel.openat2 import open_in_root
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.mountinfo import read_mountinfo
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import AT_EMPTY_PATH, O_PATH
from torpor.objects.files import settings
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext

if TYPE_CHECKING:
    from torpor.objects.ns.mnt.views import View

_HANDLE_SIZE = 128
O_TMPFILE_ONLY = 0o20000000
DELETED = " (deleted)"
_MEMORY_MAJOR = 1
#: Of /dev/mem's family, without state: null, zero, full, random, urandom, kmsg.
_PLAIN_MINORS = frozenset((3, 5, 7, 8, 9, 11))
#: Virtual terminals and serial lines; /dev/tty, console and ptmx; lines by USB; serial ports of little machines.
_TERMINAL_MAJORS, _PTY_MAJORS = frozenset((4, 5, 188, 204)), range(128, 144)


class Roots:
    """Roots of the mount namespaces of dumped processes, open for the length of a dump."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._own = os.readlink("/proc/self/ns/mnt")
        self._namespaces: dict[Pid, str] = {}
        self._by_namespace: dict[str, OwnedFd | None] = {self._own: None}
        self._proc_devices = {os.stat("/proc").st_dev}
        self._of_mount: dict[int, str] = {}
        self._mount_ids: set[int] = set()
        self._known: set[str] = set()
        self._n_met = 0
        self._views: dict[str, View] = {}
        #: Copies of mounts that others lie over, and their points; None: not in the namespace.
        self._mounts: dict[int, tuple[OwnedFd | None, str]] = {}
        #: A process in each namespace.
        self._holders: dict[str, Pid] = {}
        #: (namespace whose root it starts from, name, device, inode) of what was found by its name.
        self.there: set[tuple[str, str, int, int]] = set()

    def of(self, pid: Pid) -> int | None:
        """A directory to resolve names of *pid*'s files against; None where ours is the same."""
        return self._root(self._namespace(pid), pid)

    def of_file(self, file: OpenFile) -> int | None:
        """A directory to resolve the name of *file* against, which may be on a mount of another namespace."""
        return self._root(self.namespace_of(file), file.process.pid)

    def namespace_of(self, file: OpenFile) -> str:
        """The mount namespace that *file* is in: its process's, unless another process of the tree has its mount."""
        namespace = self._namespace(file.process.pid)
        if not self._are_several():
            return namespace
        found = self._of_mount.get(file.mount_id)
        if found is None:
            self._read_mounts()
            found = self._of_mount.setdefault(file.mount_id, namespace)
        return found

    def iter_holders(self, pid: Pid) -> Iterator[Pid]:
        """*pid*, then a process in each other mount namespace of the tree."""
        yield pid
        if self._are_several():
            own = self._namespace(pid)
            yield from (holder for namespace, holder in self._holders.items() if namespace != own)

    def has_mount(self, pid: Pid, mount_id: int) -> bool:
        """Whether a process of the tree (*pid* is one) has that mount."""
        self._are_several()
        self._holders.setdefault(self._namespace(pid), pid)
        self._read_mounts()
        return mount_id in self._mount_ids

    def has_own(self, pid: Pid) -> bool:
        """Whether *pid* is in another mount namespace than we are."""
        return self._namespace(pid) != self._own

    def is_proc(self, pid: Pid, device: int) -> bool:
        """Whether *device* is a proc file system that we see, or that *pid* does."""
        self.of(pid)
        return device in self._proc_devices

    def is_under_another_mount(self, file: OpenFile, path: str) -> bool:
        """Whether *path* would name the very file if no mount lay over its own."""
        pid = file.process.pid
        if not self.has_own(pid):
            return False
        namespace = self.namespace_of(file)
        if namespace == self._own:
            return False
        from torpor.objects.ns.mnt import views

        if namespace not in self._views:
            holder = self._holders.get(namespace, pid)
            with OwnedFd(open_pidfd(holder)) as pidfd:
                self._views[namespace] = views.read_view(holder, pidfd.fileno())
        if file.mount_id not in self._mounts:
            with OwnedFd(open_pidfd(self._views[namespace].pid)) as pidfd:
                view = replace(self._views[namespace], pidfd=pidfd.fileno())
                found = next((mount for mount in view.mounts if mount.mount_id == file.mount_id), None)
                fd = None
                with suppress(OSError):  # mounts that came into a user namespace from outside cannot be taken apart
                    fd = None if found is None else OwnedFd(views.open_mount(view, found))
                self._mounts[file.mount_id] = (fd, found.point if found else "")
        root, point = self._mounts[file.mount_id]
        if root is None or not is_below(path, point):
            return False
        return _is_named(file.stat, path[len(point.rstrip("/")) + 1 :] or ".", root.fileno())

    def _namespace(self, pid: Pid) -> str:
        if pid not in self._namespaces:
            self._namespaces[pid] = os.readlink(f"/proc/{pid}/ns/mnt")
        return self._namespaces[pid]

    def _are_several(self) -> bool:
        """Whether the processes met so far are in different namespaces."""
        processes = self._context.processes
        while self._n_met < len(processes):
            process = processes[self._n_met]
            self._n_met += 1
            if not process.is_zombie:
                with suppress(FileNotFoundError):
                    self._holders.setdefault(self._namespace(process.pid), process.pid)
        return len(self._holders) > 1

    def _read_mounts(self) -> None:
        for namespace, pid in self._holders.items():
            if namespace not in self._known:
                self._known.add(namespace)
                with suppress(FileNotFoundError):
                    ids = [mount.mount_id for mount in read_mountinfo(pid)]
                    self._of_mount.update(dict.fromkeys(ids, namespace))
                    self._mount_ids.update(ids)

    def _root(self, namespace: str, pid: Pid) -> int | None:
        if namespace not in self._by_namespace:
            fd = self._by_namespace[namespace] = OwnedFd(_open_root(self._holders.get(namespace, pid)))
            with suppress(OSError):
                self._proc_devices.add(os.stat("proc", dir_fd=fd.fileno()).st_dev)
        found = self._by_namespace[namespace]
        return found.fileno() if found else None


def is_below(path: str, top: str) -> bool:
    """Whether *path* is *top* or below it."""
    return top in ("/", path) or path.startswith(top + "/")


def places_above(path: str) -> list[str]:
    """An absolute *path* and all directories above it, the nearest first."""
    found = [path]
    while path not in ("/", ""):
        path = path.rpartition("/")[0] or "/"
        found.append(path)
    return found


def _open_root(pid: Pid) -> int:
    """The root of the mount namespace of *pid*, which may have another root itself."""
    path, flags = f"/proc/{pid}/root", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if os.readlink(path) == "/":
        return os.open(path, flags)
    with OwnedFd(open_pidfd(pid)) as pidfd:
        return inside(pidfd.fileno(), CLONE_NEWNS, lambda: os.open("/", flags))


def roots_of(context: DumpContext) -> Roots:
    """The root directories of the dump's mount namespaces, which all its objects share."""
    return context.part(Roots)


def locate(root: int | None, path: str) -> tuple[str, int | None]:
    """*path* as the ``*at`` calls want it, with their directory."""
    return (path, None) if root is None else (path.lstrip("/") or ".", root)


def is_there(file: OpenFile, path: str, context: DumpContext) -> bool:
    """Whether *path* names the very file."""
    roots, info = roots_of(context), file.stat
    key = (roots.namespace_of(file), path, info.st_dev, info.st_ino)
    if key in roots.there:
        return True
    where, dir_fd = locate(roots.of_file(file), path)
    if not _is_named(info, where, dir_fd) and not (info.st_nlink and roots.is_under_another_mount(file, path)):
        return False
    roots.there.add(key)
    return True


def _is_named(info: os.stat_result, path: str, dir_fd: int | None) -> bool:
    try:
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return found.st_ino == info.st_ino and found.st_dev == info.st_dev


def set_name(message: m.Message, field: str, path: str) -> None:
    """Set a string field to a file name, which may hold any byte."""
    try:
        setattr(message, field, path)
    except (ValueError, TypeError):
        set_text(message, field, path)


def is_plain_device(info: os.stat_result) -> bool:
    """/dev/null, zero, full, random, urandom, kmsg: no state, and nothing happens when one is opened."""
    return is_plain_number(info.st_mode, info.st_rdev)


def is_plain_number(mode: int, device: int) -> bool:
    """The same of a node's mode and number."""
    return stat.S_ISCHR(mode) and os.major(device) == _MEMORY_MAJOR and os.minor(device) in _PLAIN_MINORS


def gives_rights(mode: int) -> bool:
    """Whether who executes a file of that mode gets the rights of its owner or group."""
    return bool(mode & stat.S_ISUID or (mode & stat.S_ISGID and mode & stat.S_IXGRP))


def is_terminal(info: os.stat_result) -> bool:
    """A character device of the majors that terminals have."""
    return stat.S_ISCHR(info.st_mode) and (
        os.major(info.st_rdev) in _TERMINAL_MAJORS or os.major(info.st_rdev) in _PTY_MAJORS
    )


def is_ordinary(info: os.stat_result) -> bool:
    """What can be opened without waiting for anybody and without anything happening."""
    return stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or is_plain_device(info)


def open_below(
    root_fd: int,
    path: str,
    flags: int,
    may_be: Callable[[os.stat_result], bool] = is_ordinary,
    pids: Container[int] = (),
) -> int:
    """Open *path* as a process whose root is *root_fd* would ("": *root_fd* itself, again).

    A container's links do not lead out of its root: its images are not to be trusted with our files.  Nor does a name
    lead to whatever is there by now, a FIFO that nobody writes to or a tape: what *may_be* does not know is not opened.
    Nor is what sets anything but the processes *pids* opened for writing.  RestoreError says what is missing.
    """
    if not path:
        _check_setting(root_fd, root_fd, path, flags, pids)
        return reopen(root_fd, flags)
    try:
        found = open_in_root(root_fd, path, flags & (os.O_NOFOLLOW | os.O_DIRECTORY) | O_PATH)
        if flags & O_PATH:
            return found
        with OwnedFd(found):
            info = os.fstat(found)
            if not may_be(info):
                raise RestoreError(
                    f"{path} is {describe_type(info)}, which is not opened because an image names it",
                    hint="the file must be what it was when the checkpoint was made",
                )
            _check_setting(found, root_fd, path, flags, pids)
            # By a link of /proc a file cannot be opened with a flag that it may have kept (fcntl(2) tells).
            if flags & os.O_NOFOLLOW:
                with suppress(FileNotFoundError):
                    return _open_known(root_fd, path, flags, info)
            try:
                return reopen(found, flags & ~(os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL))
            except FileNotFoundError:
                return _open_known(root_fd, path, flags, info)
    except OSError as error:
        raise RestoreError(
            f"{path}: {error.strerror}", hint="the file must be where it was when the checkpoint was made"
        ) from error


def _check_setting(fd: int, root_fd: int, path: str, flags: int, pids: Container[int]) -> None:
    """RestoreError for a file to be written to, *path* below *root_fd*, that sets what is not of the tree's."""
    device = os.fstat(fd).st_dev
    if not settings.writes(flags) or os.major(device):
        return
    where, _, name = path.rstrip("/").rpartition("/")
    found = settings.set_by(
        filesystem_type_of(fd), device, name, lambda: open_in_root(root_fd, where or "/", O_PATH | os.O_DIRECTORY)
    )
    if found is not None and found not in pids:
        whose = f"pid {found}, which is not of the tree's" if isinstance(found, int) else found
        raise RestoreError(
            f"{path} sets {whose}: it is not opened for writing because an image names it",
            hint=f"hand it in: --inherit-fd fd[N]:{path.lstrip('/')}",
        )


def _open_known(root_fd: int, path: str, flags: int, info: os.stat_result) -> int:
    """The same, in a mount namespace whose /proc does not know of us; what was looked at, or OSError.

    Should it be another file by now, opening that one waits for nobody.
    """
    fd = open_in_root(root_fd, path, flags & ~(os.O_CREAT | os.O_EXCL) | os.O_NONBLOCK | os.O_NOCTTY)
    now = os.fstat(fd)
    if (now.st_dev, now.st_ino, now.st_rdev) != (info.st_dev, info.st_ino, info.st_rdev):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_CREAT)
    return fd


def describe_type(info: os.stat_result) -> str:
    """``a FIFO``, ``the block device 8:0``."""
    kind = stat.S_IFMT(info.st_mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        return describe_device(info.st_mode, info.st_rdev)
    return {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link"}.get(
        kind, "another file"
    )


def describe_device(mode: int, device: int) -> str:
    """``the block device 8:0``."""
    return f"the {'character' if stat.S_ISCHR(mode) else 'block'} device {os.major(device)}:{os.minor(device)}"


def reopen(fd: int, flags: int) -> int:
    """Another description of the file behind *fd*, whatever became of its name."""
    if flags & O_PATH:
        return os.dup(fd)
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def on_mount(fd: int, directory: int) -> int:
    """The file behind *fd* (O_PATH) as it is seen by way of another mount of its file system, that of *directory*.

    Names of deleted files do not lead there; handles do.  OSError where the file system has none (overlayfs).
    """
    empty = bytearray(1)
    handle = bytearray(struct.pack("Ii", _HANDLE_SIZE, 0) + bytes(_HANDLE_SIZE))
    mount_id = bytearray(4)
    places = (address_of(empty), address_of(handle), address_of(mount_id))
    syscall("name_to_handle_at", nr.name_to_handle_at, fd, *places, AT_EMPTY_PATH)
    with OwnedFd(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)) as on:
        return syscall("open_by_handle_at", nr.open_by_handle_at, on.fileno(), places[1], O_PATH | os.O_CLOEXEC)


class MissingParents:
    """The directory that a name is in; what is missing of it is there for as long as the ``with`` lasts.

    ``directory`` is the directory, ``last`` the name in it.  No link on the way leads out of the root.
    """

    def __init__(self, root_fd: int, path: str) -> None:
        self._root = root_fd
        *self._parents, self.last = path.strip("/").split("/")
        self._made: list[tuple[int, str]] = []
        self._open: list[OwnedFd] = []

    @property
    def directory(self) -> int:
        """A descriptor of it, within the ``with``."""
        return self._open[-1].fileno()

    def __enter__(self) -> MissingParents:
        try:
            self._step("/")
            for depth, name in enumerate(self._parents, 1):
                self._make("/".join(self._parents[:depth]), name)
        except OSError as error:
            self.__exit__()
            raise RestoreError(f"/{'/'.join(self._parents)}: {error.strerror}") from error
        return self

    def _make(self, path: str, name: str) -> None:
        try:
            self._step(path)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=self.directory)
            self._made.append((self.directory, name))
            self._step(path)

    def _step(self, path: str) -> None:
        self._open.append(OwnedFd(open_in_root(self._root, path, O_PATH | os.O_DIRECTORY)))

    def __exit__(self, *exception: object) -> None:
        for above, name in reversed(self._made):
            os.rmdir(name, dir_fd=above)
        self._made.clear()
        while self._open:
            self._open.pop().close()


def iter_parents(path: str) -> Iterator[str]:
    """The directories above a name, the nearest first, "" last."""
    directory = path.strip("/")
    while directory:
        directory = directory.rpartition("/")[0]
        yield directory


def free_names(path: str) -> list[str]:
    """Names to try for a file that is to be deleted again: its own, then others beside it."""
    relative = path.strip("/")
    return [relative, *(f"{relative}.torpor-{number}" for number in range(1, 100))]
