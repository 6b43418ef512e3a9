"""Finding the name of a watched inode (inotify, fanotify): the kernel tells device, inode and file handle only.

Whoever watches is not to see us looking: directories are opened by O_PATH and files asked by stat(2), of which nobody
is told, as long as that finds the name.  Only then directories are read.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.text import get_text
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_fds
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import AT_FDCWD, O_PATH
from torpor.objects.files import ghost
from torpor.objects.files.model import OpenFile, mount_of
from torpor.objects.files.paths import DELETED, locate, open_below, roots_of, set_name
from torpor.objects.session import DumpContext, DumpStage, RestoreContext

_SEARCH_LIMIT = 200_000
_HANDLE_WORDS = 16
#: An overlay's handle (overlayfs.h of the kernel): padding, a header with its length and the type of the handle of the
#: file in its layer, and that handle.
_OVERLAY_HANDLE = 0xF8
_OVERLAY_PADDING, _OVERLAY_HEADER = 3, 21


class Mounts:
    """Mount points by device, one of each, as a process sees them; of overlays the directories beneath as well."""

    def __init__(self, context: DumpContext) -> None:
        self._known: dict[Pid, dict[int, list[str]]] = {}
        self._layers: dict[int, list[str]] = {}

    def on_device(self, pid: Pid, device: int) -> list[str]:
        """Where the file system with that kernel device number is mounted for *pid*."""
        if pid not in self._known:
            found: dict[int, list[str]] = {}
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
                for line in stream:
                    fields = line.split(" ")
                    major, minor = map(int, fields[2].split(":"))
                    path = fields[4].encode(errors="surrogateescape").decode("unicode_escape")
                    found.setdefault(major << 20 | minor, []).append(path)
                    self._layers.setdefault(major << 20 | minor, _layers_of(line))
            root = os.stat(f"/proc/{pid}/root").st_dev
            # In a chroot, the mount that the root directory lies on is not among those that the process sees.
            places = found.setdefault(os.major(root) << 20 | os.minor(root), [])
            if "/" not in places:
                places.append("/")
            self._known[pid] = found
        return self._known[pid].get(device, [])

    def layers(self, device: int) -> list[str]:
        """Directories that an overlay met so far is made of, as far as they have absolute names."""
        return self._layers.get(device, [])


class Candidates:
    """Names that the processes of the tree have in use, the directories above them included."""

    def __init__(self, context: DumpContext) -> None:
        self._names: dict[str, None] = {}
        for process in context.processes:
            if not process.is_zombie:
                base = f"/proc/{process.pid}"
                links = [f"{base}/cwd", f"{base}/exe", *(f"{base}/fd/{number}" for number in read_fds(process.pid))]
                for name in (*map(os.readlink, links), *{vma.name for vma in process.maps}):
                    self._add(name)

    def _add(self, name: str) -> None:
        while name.startswith("/") and name.strip("/") and name not in self._names:
            self._names[name] = None
            name = name.rpartition("/")[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)


def _layers_of(line: str) -> list[str]:
    """The layers in a line of mountinfo: the one that is written to, and those below."""
    kind, _, options = line.partition(" - ")[2].partition(" ")
    if kind != "overlay":
        return []
    named = [option.partition("=") for option in options.rpartition(" ")[2].strip().split(",")]
    paths = [path for key, _, value in named if key in ("upperdir", "lowerdir") for path in value.split(":")]
    return [path for path in paths if path.startswith("/")]


def find(file: OpenFile, device: int, inode: int, message: m.fh_entry, handle: bytes, context: DumpContext) -> None:
    """Say in *message* by which path the inode is found that *file* watches; it is refused where there is none.

    *device* is the kernel's number.  First by the handle, or by that which an overlay's has in it, then by a search of
    likely places and then of the mount itself.
    """
    user_device = os.makedev(device >> 20, device & 0xFFFFF)
    roots = roots_of(context)
    for pid in roots.iter_holders(file.process.pid):
        mounts = context.part(Mounts).on_device(pid, device)
        found = _search(pid, mounts, (user_device, inode), (message.type, handle), context)
        if found is not None:
            break
    else:
        pid, found = file.process.pid, _find_open(user_device, inode, context)
    if found is None:
        raise file.refuse(f"the file that it watches (inode {inode}, device {device:#x}) has no name that can be found")
    root = roots.of(pid)
    if found.endswith(DELETED) and not _is_at(root, found, user_device, inode):
        found = found.removesuffix(DELETED)
        error = file.refuse(f"it watches {found}, which is deleted", "remove the watch before the checkpoint")
        context.at(DumpStage.COMPLETE, lambda: _expect_ghost(user_device, inode, context, error))
    set_name(message, "path", found)
    if root is not None:
        message.mnt_id = mount_of(root)


def _search(
    pid: Pid, mounts: list[str], wanted: tuple[int, int], handle: tuple[int, bytes], context: DumpContext
) -> str | None:
    """The path of the inode *wanted* (device, number) on those mounts of the namespace of *pid*."""
    root = roots_of(context).of(pid)
    names = (_by_handle(root, mount, *handle) for mount in mounts)
    found = next(filter(None, names), None)
    if found is not None:
        return found
    device = os.major(wanted[0]) << 20 | os.minor(wanted[0])
    layers = context.part(Mounts).layers(device)
    likely = itertools.chain(_iter_by_layer(root, mounts, layers, *handle), context.part(Candidates))
    everything = itertools.chain(likely, _iter_in_layers(root, mounts, layers), iter_candidates(pid, mounts, root))
    return next((name for name in everything if _is_at(root, name, *wanted)), None)


def _iter_by_layer(
    root: int | None, mounts: list[str], layers: list[str], handle_type: int, handle: bytes
) -> Iterator[str]:
    """Where the file of a layer may be seen through the overlay: how much of its path is the layer's is not known.

    Layers have the names that they had for who mounted them: us, or somebody in the tree's namespace.
    """
    if handle_type != _OVERLAY_HANDLE or len(handle) < _OVERLAY_HEADER + _OVERLAY_PADDING:
        return
    real_type = handle[_OVERLAY_PADDING + 4]
    real = handle[_OVERLAY_PADDING + _OVERLAY_HEADER : _OVERLAY_PADDING + handle[_OVERLAY_PADDING + 2]]
    for layer in layers:
        path = _by_handle(None, layer, real_type, real) or (root and _by_handle(root, layer, real_type, real))
        if not path:
            continue
        parts = path.strip("/").split("/")
        for mount in mounts:
            yield mount
            yield from (f"{mount.rstrip('/')}/{'/'.join(parts[at:])}" for at in range(len(parts) - 1, -1, -1))


def _iter_in_layers(root: int | None, mounts: list[str], layers: list[str]) -> Iterator[str]:
    """What an overlay may show, by reading its layers, of which nobody is told who watches the overlay.

    Before 6.6 its handles lead nowhere (16aac5ad1fa9: AT_HANDLE_FID), unless it was mounted to be exported.
    """
    for layer in layers:
        for place in dict.fromkeys((None, root)):
            with suppress(OSError):  # it has another name there, or is none of ours
                for name in _iter_names(layer, place):
                    yield from (mount.rstrip("/") + name for mount in mounts)


def fill_handle(message: m.fh_entry, fields: dict[str, str]) -> bytes:
    """The file handle of a line of fdinfo, which is returned, into its message."""
    handle = bytes.fromhex(fields.get("f_handle", ""))
    message.bytes, message.type = len(handle), int(fields.get("fhandle-type", "0"), 16)
    padded = handle + bytes(8 * _HANDLE_WORDS - len(handle))
    message.handle.extend(int.from_bytes(padded[at : at + 8], "little") for at in range(0, 8 * _HANDLE_WORDS, 8))
    return handle


def open_again(device: int, inode: int, handle: m.fh_entry, context: RestoreContext) -> int:
    """Open (O_PATH) what was watched: by its path, or as a ghost; the caller owns it."""
    known = ghost.find_restored(device, inode, context)
    if known is not None:
        return os.dup(known)
    if not handle.path:
        raise RestoreError(f"a watch on inode {inode} has no path", hint="dump it with torpor")
    mount = handle.mnt_id if handle.HasField("mnt_id") else -1
    return open_below(*context.files.place_of(mount, get_text(handle.path)), O_PATH | os.O_NOFOLLOW)


def _expect_ghost(device: int, inode: int, context: DumpContext, error: RefusedError) -> None:
    """A deleted file can be watched again only if somebody of the tree has it open, and it so travels with it."""
    if context.part(ghost.Ghosts).find(device, inode) is None:
        raise error


def _by_handle(root: int | None, mount: str, handle_type: int, handle: bytes) -> str | None:
    if not handle:
        return None
    where, dir_fd = locate(root, mount)
    try:
        with OwnedFd(os.open(where, O_PATH | os.O_CLOEXEC, dir_fd=dir_fd)) as mount_fd:
            fd = _open_by_handle(mount_fd.fileno(), handle_type, handle)
    except OSError:
        return None
    with OwnedFd(fd):
        return os.readlink(f"/proc/self/fd/{fd}")


def _open_by_handle(mount_fd: int, handle_type: int, handle: bytes) -> int:
    """By O_PATH, on the file system of *mount_fd*, which is O_PATH as well.  OSError.

    The call takes no such descriptor, but the working directory, which may be one; no other thread of ours minds it.
    """
    packed = bytearray(struct.pack("Ii", len(handle), handle_type) + handle)
    if not stat.S_ISDIR(os.fstat(mount_fd).st_mode):
        with OwnedFd(os.open(f"/proc/self/fd/{mount_fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as file:
            place = file.fileno(), address_of(packed)
            return syscall("open_by_handle_at", nr.open_by_handle_at, *place, O_PATH | os.O_CLOEXEC)
    with OwnedFd(os.open(".", O_PATH | os.O_CLOEXEC)) as home:
        os.fchdir(mount_fd)
        try:
            place = AT_FDCWD, address_of(packed)
            return syscall("open_by_handle_at", nr.open_by_handle_at, *place, O_PATH | os.O_CLOEXEC)
        finally:
            os.fchdir(home.fileno())


def _find_open(device: int, inode: int, context: DumpContext) -> str | None:
    """What the link of a descriptor for it says: a deleted file that is open has no name to search for."""
    for process in context.processes:
        if process.is_zombie:
            continue
        for number in read_fds(process.pid):
            link = f"/proc/{process.pid}/fd/{number}"
            try:
                info = os.stat(link)
            except OSError:
                continue
            if (info.st_dev, info.st_ino) == (device, inode):
                return os.readlink(link)
    return None


def _is_at(root: int | None, name: str, device: int, inode: int) -> bool:
    where, dir_fd = locate(root, name)
    try:
        info = os.stat(where, dir_fd=dir_fd, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return info.st_ino == inode and info.st_dev == device


def iter_candidates(pid: Pid, mounts: list[str], root: int | None) -> Iterator[str]:
    """Names to try for a watched file: mount points, then all that is there, for which directories are read."""
    yield from mounts
    for mount in mounts:
        yield from (mount.rstrip("/") + name for name in _iter_names(mount, root))


def _iter_names(top: str, root: int | None) -> Iterator[str]:
    """All below *top*, with names that begin there, on its file system: as many as can be looked at."""
    left = _SEARCH_LIMIT
    where, dir_fd = locate(root, top)
    for directory, subdirectories, names, fd in os.fwalk(where, dir_fd=dir_fd):
        if directory == where:
            device = os.fstat(fd).st_dev
        subdirectories[:] = [name for name in subdirectories if _device_of(name, fd) == device]
        yield from (f"{directory[len(where) :]}/{name}" for name in (*subdirectories, *names))
        left -= len(names) + len(subdirectories)
        if left < 0:
            return


def _device_of(name: str, fd: int) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_dev
    except OSError:
        return -1
