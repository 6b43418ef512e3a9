"""Files whose name is gone but which have another one somewhere.

Kernel view
    The link says `` (deleted)`` or names another file, while st_nlink is not 0; NFS renames deleted files that are open
    to ``.nfs...``.
Image
    The other name in the place of the one that is gone, where it is found: beside the old name (as that of a named
    semaphore is), else anywhere in a file system that is not too large.  With ``--link-remap`` they get a name of ours
    for the meantime: the hard link ``link_remap.N`` beside the old name has a ``reg_file_entry`` of its own, and
    ``remap-fpath.img`` ties the two together, as CRIU does.
Restore
    The old name is linked for a moment, opened and unlinked; in the end the ``link_remap.N`` goes.
Limits
    Links are made only with ``--link-remap``, since they change the file system; a dump that fails or leaves the tree
    running takes them away again.  Without, /proc shows the other name after the restore.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text
from torpor.kernel.idmap import owning
from torpor.kernel.mount import OVERLAYFS, filesystem_type
from torpor.kernel.procfs.mountinfo import read_mountinfo
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files import paths
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

#: Of the names of links, before a number.
_LINK = "link_remap"
#: Names looked at for another one of a file.
_MAX_SEARCHED = 50_000


class Links:
    """The links made by a dump: reg_file_entry by mount and inode."""

    def __init__(self, context: DumpContext) -> None:
        self.by_inode: dict[tuple[int, int, int], int] = {}


def dump(file: OpenFile, name: str, file_id: int, context: DumpContext) -> str:
    """The name for ``reg_file_entry`` *file_id* of *file*, once called *name*: another one, or its own with a link."""
    if not context.policies.files.link_remap:
        return _require_other_name(file, name, context)
    links = context.part(Links)
    # One on each mount: CRIU links it to the old name, which two mounts forbid.
    key = (file.mount_id, file.stat.st_dev, file.stat.st_ino)
    if key not in links.by_inode:
        links.by_inode[key] = _make(file, name, context)
    remap = m.remap_file_path_entry(orig_id=file_id, remap_id=links.by_inode[key], remap_type=m.remap_type.LINKED)
    context.image("REMAP_FPATH").add(remap)
    return name


def is_gone(file: OpenFile, name: str, context: DumpContext) -> bool:
    """Whether *file*, once called *name*, has no name left at all.

    In an overlay, st_nlink of a file of a lower layer stays as it is there.  Nobody can give it a name again, though,
    which vfs_link refuses with ENOENT; where that works, the new name goes at once.
    """
    if file.stat.st_nlink == 0 or file.target == name:
        return file.stat.st_nlink == 0
    path = f"/proc/self/fd/{file.fd}" if file.fd >= 0 else f"/proc/{file.process.pid}/fd/{file.number}"
    if filesystem_type(path) != OVERLAYFS:
        return False
    where, dir_fd = paths.locate(paths.roots_of(context).of_file(file), f"{name}.torpor-{os.getpid()}")
    at = os.open("/", O_PATH | os.O_CLOEXEC) if dir_fd is None else os.dup(dir_fd)
    with OwnedFd(at) as directory:
        try:
            os.link(path, where, src_dir_fd=at, dst_dir_fd=directory.fileno(), follow_symlinks=True)
        except FileNotFoundError:
            return True
        except OSError:  # a read-only mount does not tell
            return _find_other_name(file, name, dir_fd) is None
        os.unlink(where, dir_fd=directory.fileno())
    return False


def check(file: OpenFile, name: str, context: DumpContext) -> None:
    """Refuse *file*, once called *name*, where no other name is found and links must not be made."""
    if not context.policies.files.link_remap:
        _require_other_name(file, name, context)


def _require_other_name(file: OpenFile, name: str, context: DumpContext) -> str:
    _refuse_from_outside(file, name, context)
    found = _find_other_name(file, name, paths.roots_of(context).of(file.process.pid))
    if found is None:
        raise file.refuse(
            f"{name} is deleted, and the other name that the file has is not found", hint="try --link-remap"
        )
    return found


def _refuse_from_outside(file: OpenFile, name: str, context: DumpContext) -> None:
    """Say so where the file was opened outside of the mount namespace (a container's log): no name leads there."""
    pid = file.process.pid
    if not paths.roots_of(context).has_own(pid) or file.number < 0:
        return
    if file.mount_id not in {mount.mount_id for mount in read_mountinfo(pid)}:
        raise file.refuse(
            f"{name} is on a mount that the process does not have: it was opened outside and handed in",
            hint=f"give it a pipe or /dev/null, or name it: --external file[{file.mount_id:x}:{file.stat.st_ino:x}]",
        )


def find_names(file: OpenFile, name: str, root: int | None, n_at_most: int) -> list[str]:
    """Names of *file*, once called *name*, as many as it has, as far as they are found."""
    found: list[str] = []
    for other in _iter_names(file, name, root):
        if other not in found:
            found.append(other)
        if len(found) >= min(file.stat.st_nlink, n_at_most):
            break
    return found


def _find_other_name(file: OpenFile, name: str, root: int | None) -> str | None:
    return next(_iter_names(file, name, root), None)


def _iter_names(file: OpenFile, name: str, root: int | None) -> Iterator[str]:
    """What *file*, once called *name*, is called: the names beside that first; some may come twice."""
    directory = name.rpartition("/")[0]
    yield from _look_through(file, directory or "/", root)[0]
    # From the top of the file system down, nearest first.
    while directory and _device_of(directory.rpartition("/")[0] or "/", root) == _device_of(directory, root):
        directory = directory.rpartition("/")[0]
    device, todo, n_seen = _device_of(directory or "/", root), [directory or "/"], 0
    for at in todo:
        found, below, n_entries = _look_through(file, at, root)
        yield from found
        n_seen += n_entries
        if n_seen > _MAX_SEARCHED:
            return
        todo += [path for path in below if _device_of(path, root) == device]


def _device_of(path: str, root: int | None) -> int:
    where, dir_fd = paths.locate(root, path)
    try:
        return os.stat(where, dir_fd=dir_fd, follow_symlinks=False).st_dev
    except OSError:
        return -1


def _look_through(file: OpenFile, directory: str, root: int | None) -> tuple[list[str], list[str], int]:
    """The names of *file* in *directory*; what else is a directory; how many names there are."""
    where, dir_fd = paths.locate(root, directory)
    try:
        fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return [], [], 0
    names: list[str] = []
    below: list[str] = []
    n_entries = 0
    with OwnedFd(fd), os.scandir(fd) as entries:
        for entry in entries:
            n_entries += 1
            path = f"{'' if directory == '/' else directory}/{entry.name}"
            if entry.inode() == file.stat.st_ino and _is_same(entry, file):
                names.append(path)
            if entry.is_dir(follow_symlinks=False):
                below.append(path)
    return names, below, n_entries


def _is_same(entry: os.DirEntry[str], file: OpenFile) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == (file.stat.st_dev, file.stat.st_ino)


def _make(file: OpenFile, name: str, context: DumpContext) -> int:
    entry = context.files.new_entry(m.fd_types.REG)
    reg = entry.reg
    reg.id, reg.flags, reg.pos = entry.id, 0, 0
    if paths.roots_of(context).has_own(file.process.pid):
        reg.mnt_id = file.mount_id
    reg.fown.uid = reg.fown.euid = reg.fown.signum = reg.fown.pid_type = reg.fown.pid = 0
    path = _link(file, name, entry.id, context)
    paths.set_name(reg, "name", path)
    return entry.id


def _link(file: OpenFile, name: str, number: int, context: DumpContext) -> str:
    """Make the link in the nearest directory above *name* that is left; its path."""
    root = paths.roots_of(context).of_file(file)
    directory = name.rpartition("/")[0]
    while True:
        for attempt in range(number, number + 1_000_000, 1000):
            path = f"{directory}/link_remap.{attempt}"
            where, dir_fd = paths.locate(root, path)
            try:
                with owning(file.process.idmaps):
                    # Python calls linkat(2), which alone can follow the link, only where a directory is given.
                    os.link(
                        f"/proc/self/fd/{file.fd}", where, src_dir_fd=file.fd, dst_dir_fd=dir_fd, follow_symlinks=True
                    )
            except FileExistsError:
                continue
            except (FileNotFoundError, NotADirectoryError):
                break
            except OSError as error:
                raise file.refuse(f"{name}: it cannot get the name {path}: {error.strerror}") from error
            context.undo.add(lambda where=where, dir_fd=dir_fd: os.unlink(where, dir_fd=dir_fd))  # type: ignore[misc]
            return path
        if not directory:
            raise file.refuse(f"{name}: there is no place for a link to it")
        directory = directory.rpartition("/")[0]


def restore(reg: m.reg_file_entry, link_id: int, flags: int, context: RestoreContext) -> int:
    """Open *reg*, whose file is known as the entry *link_id* now; its old name is shown, deleted."""
    entry = context.files.entry(link_id)
    if not entry.HasField("reg"):
        raise ImageError(f"remap-fpath.img: file {link_id} has no name")
    head, _, number = get_text(entry.reg.name).rpartition("/")[2].partition(".")
    if head != _LINK or not number.isdecimal():
        # It is deleted in the end: whatever else an image calls so stays.
        raise ImageError(
            f"remap-fpath.img: {get_text(entry.reg.name)!r} (remap_id {link_id}) is no name that a dump gives a link"
        )
    # CRIU says of the old name alone which mount it is on.
    mount = entry.reg.mnt_id if entry.reg.mnt_id >= 0 else reg.mnt_id
    source_root, source = context.files.place_of(mount, get_text(entry.reg.name))
    root, name = context.files.place_of_reg(reg)
    if context.once(("link", link_id)):
        context.at(RestoreStage.TIDY, lambda: _unlink(source, source_root))
    with paths.MissingParents(source_root, source) as at, paths.MissingParents(root, name) as parents:
        for candidate in paths.free_names(parents.last):
            try:
                _link_again(at.directory, at.last, parents.directory, candidate)
            except FileExistsError:
                continue
            except OSError as error:
                raise RestoreError(f"{source}: {error.strerror}", hint="the dump left this link there") from error
            try:
                return paths.open_below(parents.directory, candidate, flags)
            finally:
                os.unlink(candidate, dir_fd=parents.directory)
    raise RestoreError(f"{name}: no name beside it is free")


def _link_again(source_directory: int, source: str, directory: int, name: str) -> None:
    try:
        os.link(source, name, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The same file system may be mounted at both places.
        flags = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            OwnedFd(os.open(source, flags, dir_fd=source_directory)) as fd,
            OwnedFd(paths.on_mount(fd.fileno(), directory)) as found,
        ):
            at = found.fileno()
            os.link(f"/proc/self/fd/{at}", name, src_dir_fd=at, dst_dir_fd=directory, follow_symlinks=True)


def _unlink(name: str, root: int) -> None:
    with suppress(FileNotFoundError), paths.MissingParents(root, name) as parents:
        os.unlink(parents.last, dir_fd=parents.directory)
