"""inotify(7): watches on files and directories.

Kernel view
    ``inotify`` lines in fdinfo: watch descriptor, inode, device, mask, and a file handle.
Image
    ``inotify_file_entry`` with one ``inotify_wd_entry`` a watch; the handle, and the path found by it.
Restore
    Watches are added in ascending order of their descriptors; the kernel counts up, so the numbers in between are used
    up by watches that are taken away again.
Limits
    Events that wait to be read are lost, with a warning: nothing can put them back.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.inotify import IN_DONT_FOLLOW
from torpor.kernel.uapi.ioctls import FIONREAD
from torpor.objects.files import fown, watched
from torpor.objects.files.model import FileKind, OpenFile, Placed
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

_IN_CLOEXEC = os.O_CLOEXEC
_MAX_WATCH = 1 << 22
#: The mask of watches that only use up a number: the kernel takes it, and they are removed at once.
_IN_IGNORABLE = 0x800


def matches(file: OpenFile) -> bool:
    """Whether it is an instance of inotify_init1(2), by its link."""
    return file.target == "anon_inode:inotify"


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.ify`` with the watches; events that wait are lost, with a warning."""
    inotify = entry.ify
    inotify.id, inotify.flags = entry.id, file.flags
    fown.fill(inotify.fown, file)
    if lost := _waiting(file):
        log.warn(lost)
    for line in file.fdinfo:
        if line.startswith("inotify "):
            _dump_watch(file, line, inotify.wd.add(), context)


def check(file: OpenFile, context: DumpContext) -> None:
    """Say what is lost."""
    if file.fd >= 0 and (lost := _waiting(file)):
        context.noticed.lose(lost)


def _waiting(file: OpenFile) -> str:
    import fcntl

    n_bytes = int.from_bytes(fcntl.ioctl(file.fd, FIONREAD, bytes(4)), "little")
    if not n_bytes:
        return ""
    return f"{file.describe()}: inotify events are waiting to be read ({n_bytes} bytes); they will be lost"


def _dump_watch(file: OpenFile, line: str, watch: m.inotify_wd_entry, context: DumpContext) -> None:
    fields = dict(part.split(":", 1) for part in line.split()[1:])
    watch.id = 0
    watch.wd, watch.i_ino = int(fields["wd"], 16), int(fields["ino"], 16)
    watch.s_dev, watch.mask = int(fields["sdev"], 16), int(fields["mask"], 16)
    watch.ignored_mask = int(fields.get("ignored_mask", "0"), 16)
    handle = watched.fill_handle(watch.f_handle, fields)
    watched.find(file, watch.s_dev, watch.i_ino, watch.f_handle, handle, context)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """An instance without watches; they come when nothing is opened or closed any more, which they would tell of."""
    flags = entry.ify.flags & os.O_NONBLOCK | _IN_CLOEXEC
    return syscall("inotify_init1", nr.inotify_init1, flags)


def attach(entry: m.file_entry, context: RestoreContext, placed: Placed) -> None:
    """Find what is watched (by O_PATH, which nobody is told of); the watches are added at the end."""
    watches = sorted(entry.ify.wd, key=lambda each: each.wd)
    used = 0
    for watch in watches:
        if not used < watch.wd < _MAX_WATCH:
            raise ImageError(f"files.img: inotify {entry.id} has a watch descriptor {watch.wd}")
        used = watch.wd
    own = context.keep(os.dup(placed.fd))
    targets = [context.keep(watched.open_again(each.s_dev, each.i_ino, each.f_handle, context)) for each in watches]
    context.at(RestoreStage.WATCHED, lambda: _add_watches(entry.id, own, list(zip(watches, targets, strict=True))))


def _add_watches(ident: int, own: OwnedFd, watches: list[tuple[m.inotify_wd_entry, OwnedFd]]) -> None:
    used = 0
    for watch, target in watches:
        path = f"/proc/self/fd/{target.fileno()}".encode() + b"\0"
        while used < watch.wd - 1:
            used = _add_watch(own.fileno(), path, _IN_IGNORABLE)
            syscall("inotify_rm_watch", nr.inotify_rm_watch, own.fileno(), used)
        used = _add_watch(own.fileno(), path, watch.mask & ~IN_DONT_FOLLOW)
        if used != watch.wd:
            raise RestoreError(f"inotify {ident}: the watch descriptor {watch.wd} became {used}")
    _drain(own.fileno())


def _add_watch(fd: int, path: bytes, mask: int) -> int:
    buffer = bytearray(path)
    return syscall("inotify_add_watch", nr.inotify_add_watch, fd, address_of(buffer), mask)


def _drain(fd: int) -> None:
    """Read away the IN_IGNORED events of the watches that were only counted."""
    import fcntl

    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        pass
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


KIND = FileKind("inotify", m.fd_types.INOTIFY, matches, dump, restore, attach, check)
