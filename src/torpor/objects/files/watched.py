"""Finding the name of a watched inode (inotify, fanotify): the kernel tells device, inode and file handle only."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from torpor.base.errors import RefusedError, RestoreError
from torpor.images import messages as m
from torpor.images.text import get_text
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_fds
from torpor.kernel.syscall import address_of, syscall
from torpor.objects.files import ghost
from torpor.objects.files.model import FileDump, FileRestore, OpenFile, mount_of
from torpor.objects.files.paths import DELETED, O_PATH, locate, open_below, roots_of, set_name

_SEARCH_LIMIT = 200_000
_HANDLE_WORDS = 16


class Mounts:
    """Mount points by device, one of each, as a process sees them."""

    def __init__(self, session: FileDump) -> None:
        self._known: dict[int, dict[int, list[str]]] = {}

    def on_device(self, pid: int, device: int) -> list[str]:
        """Where the file system with that kernel device number is mounted for *pid*."""
        if pid not in self._known:
            found: dict[int, list[str]] = {}
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
                for line in stream:
                    fields = line.split(" ")
                    major, minor = map(int, fields[2].split(":"))
                    path = fields[4].encode(errors="surrogateescape").decode("unicode_escape")
                    found.setdefault(major << 20 | minor, []).append(path)
            root = os.stat(f"/proc/{pid}/root").st_dev
            # In a chroot, the mount that the root directory lies on is not among those that the process sees.
            places = found.setdefault(os.major(root) << 20 | os.minor(root), [])
            if "/" not in places:
                places.append("/")
            self._known[pid] = found
        return self._known[pid].get(device, [])


def find(file: OpenFile, device: int, inode: int, message: m.fh_entry, handle: bytes, session: FileDump) -> None:
    """Say in *message* by which path the inode is found that *file* watches; it is refused where there is none.

    *device* is the kernel's number.  First by the handle, then, where the file system cannot find by handle
    (overlayfs), by a search of likely places and then of the mount itself.
    """
    user_device = os.makedev(device >> 20, device & 0xFFFFF)
    roots = roots_of(session)
    for pid in roots.iter_holders(file.process.pid):
        mounts = session.part(Mounts).on_device(pid, device)
        found = _search(pid, mounts, (user_device, inode), (message.type, handle), roots.of(pid))
        if found is not None:
            break
    else:
        pid, found = file.process.pid, _find_open(user_device, inode, session)
    if found is None:
        raise file.refuse(f"the file that it watches (inode {inode}, device {device:#x}) has no name that can be found")
    root = roots.of(pid)
    if found.endswith(DELETED) and not _is_at(root, found, user_device, inode):
        found = found.removesuffix(DELETED)
        error = file.refuse(f"it watches {found}, which is deleted", "remove the watch before the checkpoint")
        session.at_end(lambda: _expect_ghost(user_device, inode, session, error))
    set_name(message, "path", found)
    if root is not None:
        message.mnt_id = mount_of(root)


def _search(
    pid: int, mounts: list[str], wanted: tuple[int, int], handle: tuple[int, bytes], root: int | None
) -> str | None:
    """The path of the inode *wanted* (device, number) on those mounts of the namespace of *pid*."""
    names = (_by_handle(root, mount, *handle) for mount in mounts)
    found = next(filter(None, names), None)
    if found is not None:
        return found
    return next((name for name in iter_candidates(pid, mounts, root) if _is_at(root, name, *wanted)), None)


def fill_handle(message: m.fh_entry, fields: dict[str, str]) -> bytes:
    """The file handle of a line of fdinfo, which is returned, into its message."""
    handle = bytes.fromhex(fields.get("f_handle", ""))
    message.bytes, message.type = len(handle), int(fields.get("fhandle-type", "0"), 16)
    padded = handle + bytes(8 * _HANDLE_WORDS - len(handle))
    message.handle.extend(int.from_bytes(padded[at : at + 8], "little") for at in range(0, 8 * _HANDLE_WORDS, 8))
    return handle


def open_again(device: int, inode: int, handle: m.fh_entry, session: FileRestore) -> int:
    """Open (O_PATH) what was watched: by its path, or as a ghost; the caller owns it."""
    known = ghost.find_restored(device, inode, session)
    if known is not None:
        return os.dup(known)
    if not handle.path:
        raise RestoreError(f"a watch on inode {inode} has no path", hint="dump it with torpor")
    mount = handle.mnt_id if handle.HasField("mnt_id") else -1
    return open_below(*session.place_of(mount, get_text(handle.path)), O_PATH | os.O_NOFOLLOW)


def _expect_ghost(device: int, inode: int, session: FileDump, error: RefusedError) -> None:
    """A deleted file can be watched again only if somebody of the tree has it open, and it so travels with it."""
    if session.part(ghost.Ghosts).find(device, inode) is None:
        raise error


def _by_handle(root: int | None, mount: str, handle_type: int, handle: bytes) -> str | None:
    if not handle:
        return None
    where, dir_fd = locate(root, mount)
    packed = bytearray(struct.pack("Ii", len(handle), handle_type) + handle)
    try:
        mount_fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        fd = syscall("open_by_handle_at", nr.open_by_handle_at, mount_fd, address_of(packed), O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(mount_fd)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _find_open(device: int, inode: int, session: FileDump) -> str | None:
    """What the link of a descriptor for it says: a deleted file that is open has no name to search for."""
    for process in session.processes:
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


def iter_candidates(pid: int, mounts: list[str], root: int | None) -> Iterator[str]:
    """Names to try for a watched file: mount points, the way to the working directory, then all that is there."""
    yield from mounts
    cwd = os.readlink(f"/proc/{pid}/cwd")
    while cwd.strip("/"):
        yield cwd
        cwd = cwd.rpartition("/")[0]
    left = _SEARCH_LIMIT
    for mount in mounts:
        where, dir_fd = locate(root, mount)
        for directory, subdirectories, names, fd in os.fwalk(where, dir_fd=dir_fd):
            if directory == where:
                device = os.fstat(fd).st_dev
            subdirectories[:] = [name for name in subdirectories if _device_of(name, fd) == device]
            at = mount.rstrip("/") + directory[len(where) :]
            for name in (*subdirectories, *names):
                yield f"{at}/{name}"
            left -= len(names) + len(subdirectories)
            if left < 0:
                return


def _device_of(name: str, fd: int) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_dev
    except OSError:
        return -1
