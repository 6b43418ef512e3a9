"""Files whose name is gone but which have another one somewhere: they get a name of ours for the meantime.

Kernel view
    The link says `` (deleted)`` or names another file, while st_nlink is not 0; NFS renames deleted files that are open
    to ``.nfs...``.
Image
    The hard link ``link_remap.N`` beside the old name has a ``reg_file_entry`` of its own; ``remap-fpath.img`` ties the
    two together, as CRIU does.
Restore
    The old name is linked for a moment, opened and unlinked; in the end the ``link_remap.N`` goes.
Limits
    Only with ``--link-remap``, since it changes the file system.  A dump that fails or leaves the tree running takes
    the links away again.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text
from torpor.objects.files import paths
from torpor.objects.files.model import FileDump, FileRestore, OpenFile


class Links:
    """The links made by a dump: reg_file_entry by inode."""

    def __init__(self, session: FileDump) -> None:
        self.by_inode: dict[tuple[int, int], int] = {}


def dump(file: OpenFile, name: str, file_id: int, session: FileDump) -> None:
    """Give *file*, once called *name*, a link and tie ``reg_file_entry`` *file_id* to it."""
    check(file, name, session)
    links = session.part(Links)
    key = (file.stat.st_dev, file.stat.st_ino)
    if key not in links.by_inode:
        links.by_inode[key] = _make(file, name, session)
    remap = m.remap_file_path_entry(orig_id=file_id, remap_id=links.by_inode[key], remap_type=m.remap_type.LINKED)
    session.image("REMAP_FPATH").add(remap)


def check(file: OpenFile, name: str, session: FileDump) -> None:
    """Refuse *file*, once called *name*, where links must not be made."""
    if not session.policy.link_remap:
        raise file.refuse(f"{name} is deleted, but the file has other names", hint="try --link-remap")


def _make(file: OpenFile, name: str, session: FileDump) -> int:
    entry = session.new_entry(m.fd_types.REG)
    reg = entry.reg
    reg.id, reg.flags, reg.pos = entry.id, 0, 0
    reg.fown.uid = reg.fown.euid = reg.fown.signum = reg.fown.pid_type = reg.fown.pid = 0
    path = _link(file, name, entry.id, session)
    paths.set_name(reg, "name", path)
    return entry.id


def _link(file: OpenFile, name: str, number: int, session: FileDump) -> str:
    """Make the link in the nearest directory above *name* that is left; its path."""
    root = paths.roots_of(session).of(file.process.pid)
    directory = name.rpartition("/")[0]
    while True:
        for attempt in range(number, number + 1_000_000, 1000):
            path = f"{directory}/link_remap.{attempt}"
            where, dir_fd = paths.locate(root, path)
            try:
                # Python calls linkat(2), which alone can follow the link, only where a directory is given.
                os.link(f"/proc/self/fd/{file.fd}", where, src_dir_fd=file.fd, dst_dir_fd=dir_fd, follow_symlinks=True)
            except FileExistsError:
                continue
            except (FileNotFoundError, NotADirectoryError):
                break
            except OSError as error:
                raise file.refuse(f"{name}: it cannot get the name {path}: {error.strerror}") from error
            session.on_undo(lambda where=where, dir_fd=dir_fd: os.unlink(where, dir_fd=dir_fd))  # type: ignore[misc]
            return path
        if not directory:
            raise file.refuse(f"{name}: there is no place for a link to it")
        directory = directory.rpartition("/")[0]


def restore(reg: m.reg_file_entry, link_id: int, flags: int, session: FileRestore) -> int:
    """Open *reg*, whose file is known as the entry *link_id* now; its old name is shown, deleted."""
    entry = session.entry(link_id)
    if not entry.HasField("reg"):
        raise ImageError(f"remap-fpath.img: file {link_id} has no name")
    source = get_text(entry.reg.name).strip("/")
    name = get_text(reg.name)
    root = session.root_fd
    session.at_end(("link", link_id), lambda: _unlink(source, root))
    with paths.MissingParents(root, name):
        for candidate in paths.free_names(name):
            try:
                os.link(source, candidate, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise RestoreError(f"/{source}: {error.strerror}", hint="the dump left this link there") from error
            try:
                return paths.open_below(root, candidate, flags)
            finally:
                os.unlink(candidate, dir_fd=root)
    raise RestoreError(f"{name}: no name beside it is free")


def _unlink(name: str, root: int) -> None:
    try:
        os.unlink(name, dir_fd=root)
    except FileNotFoundError:
        return
