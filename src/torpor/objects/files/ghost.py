"""Ghost files: deleted, but open or mapped; they travel inside the checkpoint.

Kernel view
    No link is left (st_nlink 0); the contents are read through the descriptor, holes by SEEK_DATA and SEEK_HOLE.
Image
    ``ghost-file-ID.img`` per inode: ``ghost_file_entry``, then the pieces that are no holes; ``remap-fpath.img`` says
    which ``reg_file_entry`` is which ghost, and in ``torpor_inode`` what the ghost's own message has no field for.
Restore
    A file is made under its old name (another one where that is taken), opened and unlinked at once, then filled; every
    description of it is opened through ``/proc/self/fd``.  So with each of its names, on each mount, while the first is
    there.  A restore that fails leaves no trace.
Limits
    Several names of one deleted directory become one.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from torpor.base.errors import TRUST_IT, NotPermittedError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry, header, write_entry
from torpor.images.store import iter_entries
from torpor.images.text import get_text
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files import inode, paths
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext, RestoreContext

_STEP = 4 << 20
_BLOCK = 512
_MAX_SIZE = (1 << 63) - 1


class Ghosts:
    """The ghosts of a dump, by inode."""

    def __init__(self, context: DumpContext) -> None:
        self._ids: dict[tuple[int, int], int] = {}

    def find(self, device: int, inode: int) -> int | None:
        """The id of a ghost that is in the checkpoint already."""
        return self._ids.get((device, inode))

    def add(self, device: int, inode: int) -> int:
        """A new ghost's id."""
        return self._ids.setdefault((device, inode), len(self._ids) + 1)


def dump(file: OpenFile, file_id: int, context: DumpContext) -> None:
    """Put the deleted *file* into the checkpoint, once an inode, and tie ``reg_file_entry`` *file_id* to it."""
    ghosts = context.part(Ghosts)
    info = file.stat
    known = ghosts.find(info.st_dev, info.st_ino)
    ghost_id = ghosts.add(info.st_dev, info.st_ino)
    remap = m.remap_file_path_entry(orig_id=file_id, remap_id=ghost_id, remap_type=m.remap_type.GHOST)
    if known is None:
        check(file, context)
        inode.fill(remap.torpor_inode, file.fd, info)
        _write(file, ghost_id, context)
    context.image("REMAP_FPATH").add(remap)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse a deleted file that could not be made again, or that is larger than the policy allows."""
    if stat.S_ISSOCK(file.stat.st_mode):
        raise file.refuse(
            f"{file.target}: the deleted file of a socket cannot be carried (O_PATH)", hint="close it and try again"
        )
    limit, size = context.policies.files.ghost_limit, file.stat.st_blocks * _BLOCK
    if limit is not None and size > limit:
        raise file.refuse(
            f"{file.target} takes {size} bytes, more than --ghost-limit {limit}", hint="raise --ghost-limit"
        )


def _write(file: OpenFile, ghost_id: int, context: DumpContext) -> None:
    info = file.stat
    user, group = file.process.idmaps.inside(info.st_uid, info.st_gid)
    entry = m.ghost_file_entry(uid=user, gid=group, mode=info.st_mode, ino=info.st_ino)
    entry.dev = kernel_device(info.st_dev)
    entry.atim.tv_sec, entry.atim.tv_usec = divmod(info.st_atime_ns // 1000, 1_000_000)
    entry.mtim.tv_sec, entry.mtim.tv_usec = divmod(info.st_mtime_ns // 1000, 1_000_000)
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        if not paths.is_plain_device(info):
            raise file.refuse(f"{file.target} is {paths.describe_type(info)}, deleted", hint="close it and try again")
        entry.rdev = kernel_device(info.st_rdev)
    elif stat.S_ISLNK(info.st_mode):
        paths.set_name(entry, "symlnk_target", os.readlink("", dir_fd=file.fd))
    elif stat.S_ISREG(info.st_mode):
        entry.chunks, entry.size = True, info.st_size
    elif not (stat.S_ISDIR(info.st_mode) or stat.S_ISFIFO(info.st_mode)):
        raise file.refuse(f"{file.target}: a deleted file of mode {info.st_mode:o} cannot be carried")
    kind = kinds.GHOST_FILE
    with context.store.open_write(kind.file_name(ghost_id)) as stream:
        stream.write(header(kind))
        write_entry(stream, kind, entry)
        if not stat.S_ISREG(info.st_mode):
            return
        reader = os.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        with OwnedFd(reader):
            for offset, length in _pieces(reader, info.st_size):
                data = os.pread(reader, length, offset)
                write_entry(stream, kind, Entry(m.ghost_chunk_entry(len=len(data), off=offset), data))


def _pieces(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of what is not a hole, in steps that fit into memory."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break  # ENXIO: a hole up to the end
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        found += [(offset, min(_STEP, at - offset)) for offset in range(start, at, _STEP)]
    return found


def kernel_device(device: int) -> int:
    """A device number as the kernel has it inside, and images: 20 bits of minor."""
    return os.major(device) << 20 | os.minor(device)


def keeper(reg: m.reg_file_entry, ghost_id: int, context: RestoreContext) -> int:
    """The ghost, made by the first who asks, as a borrowed O_PATH descriptor of it on the mount that *reg* says."""
    made = context.files.shared(("ghost", ghost_id), lambda: _make(reg, ghost_id, context))
    name = _name_of(reg)
    if name == context.part(Restored).names.get(ghost_id) and context.files.maker_of(reg) is None:
        return made
    return context.files.shared(("ghost", ghost_id, name), lambda: _on_other_mount(made, reg, context))


def _name_of(reg: m.reg_file_entry) -> tuple[int, str]:
    return reg.mnt_id, get_text(reg.name)


def _on_other_mount(fd: int, reg: m.reg_file_entry, context: RestoreContext) -> int:
    root, name = context.files.place_of_reg(reg)
    for directory in paths.iter_parents(name):
        try:
            with OwnedFd(os.open(directory or ".", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)) as on:
                return paths.on_mount(fd, on.fileno())
        except FileNotFoundError:
            continue  # deleted as well
        except OSError:
            break  # a file system without handles
    return os.dup(fd)


def find_restored(device: int, inode: int, context: RestoreContext) -> int | None:
    """The keeper of the ghost that had that inode (*device* as the kernel has it), if it has been made."""
    found = context.part(Restored).by_inode.get((device, inode))
    return None if found is None else context.files.shared(("ghost", found), _never)


def _never() -> int:
    raise ImageError("a ghost file that was made is gone")


class Restored:
    """Ghosts that a restore has made, by their old inode."""

    def __init__(self, context: RestoreContext) -> None:
        self.by_inode: dict[tuple[int, int], int] = {}
        #: The mount that a ghost was made on, and its name there.
        self.names: dict[int, tuple[int, str]] = {}
        self._context = context
        self._all_names: dict[int, dict[tuple[int, str], m.reg_file_entry]] = {}
        self._inodes: dict[int, m.torpor_inode] = {}

    def inode_of(self, ghost_id: int) -> m.torpor_inode | None:
        """What CRIU's message of the ghost does not say."""
        self._look()
        return self._inodes.get(ghost_id)

    def add_names(self, fd: int, ghost_id: int) -> None:
        """The ghost behind *fd* still has the name that it was made by: it gets all others, for as long."""
        for name, reg in self._names_of(ghost_id).items():
            if name != self.names[ghost_id] and self._context.files.maker_of(reg) is None:
                with suppress(OSError, RestoreError):
                    opened = _open_by(fd, reg, self._context)
                    self._context.files.shared(("ghost", ghost_id, name), lambda opened=opened: opened)  # type: ignore[misc]

    def _names_of(self, ghost_id: int) -> dict[tuple[int, str], m.reg_file_entry]:
        self._look()
        return self._all_names.get(ghost_id, {})

    def _look(self) -> None:
        if self._all_names:
            return
        from torpor.objects.files.regular import Remaps

        for file_id, remap in self._context.part(Remaps).by_file.items():
            entry = self._context.files.entries.get(file_id)
            if entry is not None and remap.remap_type == m.remap_type.GHOST:
                self._all_names.setdefault(remap.remap_id, {}).setdefault(_name_of(entry.reg), entry.reg)
                if remap.HasField("torpor_inode"):
                    self._inodes.setdefault(remap.remap_id, remap.torpor_inode)


def _open_by(fd: int, reg: m.reg_file_entry, context: RestoreContext) -> int:
    """The file behind *fd*, which has a name still, by the name that *reg* says, on its mount; it loses that again."""
    root, name = context.files.place_of_reg(reg)
    with paths.MissingParents(root, name) as parents, OwnedFd(paths.on_mount(fd, parents.directory)) as there:
        for candidate in paths.free_names(parents.last):
            try:
                # Python calls linkat(2), which alone can follow the link, only where a directory is given.
                os.link(
                    f"/proc/self/fd/{there.fileno()}", candidate, src_dir_fd=there.fileno(),
                    dst_dir_fd=parents.directory, follow_symlinks=True,
                )  # fmt: skip
            except FileExistsError:
                continue
            try:
                return os.open(candidate, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parents.directory)
            finally:
                os.unlink(candidate, dir_fd=parents.directory)
    raise RestoreError(f"{name}: no name beside it is free for a deleted file")


def _make(reg: m.reg_file_entry, ghost_id: int, context: RestoreContext) -> int:
    entries = iter_entries(context.store, "GHOST_FILE", ghost_id)
    first = next(entries, None)
    if first is None or not isinstance(first.message, m.ghost_file_entry):
        raise ImageError(f"ghost-file-{ghost_id:x}.img is empty")
    entry = first.message
    if not context.policies.files.special_files and stat.S_ISREG(entry.mode) and paths.gives_rights(entry.mode):
        raise NotPermittedError(
            f"ghost-file-{ghost_id:x}.img: mode: a file of mode {stat.S_IMODE(entry.mode):o} is asked for",
            hint=TRUST_IT,
        )
    context.part(Restored).by_inode[entry.dev, entry.ino] = ghost_id
    context.part(Restored).names[ghost_id] = _name_of(reg)
    with OwnedFd(_create(entry, reg, ghost_id, context)) as fd:
        path = f"/proc/self/fd/{fd.fileno()}"
        if stat.S_ISREG(entry.mode):
            with OwnedFd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as writer:
                if not entry.chunks:
                    os.pwrite(writer.fileno(), first.payload, 0)
                for chunk in entries:
                    _put(writer.fileno(), chunk)
                if entry.HasField("size"):
                    os.ftruncate(writer.fileno(), min(entry.size, _MAX_SIZE))
        os.chown(path, *context.idmaps.outside(entry.uid, entry.gid))
        if not stat.S_ISLNK(entry.mode):
            os.chmod(path, stat.S_IMODE(entry.mode))
        if entry.HasField("mtim"):
            os.utime(path, ns=(_ns(entry.atim), _ns(entry.mtim)))
        if (more := context.part(Restored).inode_of(ghost_id)) is not None:
            inode.restore(more, path, f"ghost-file-{ghost_id:x}.img", context)
        return fd.release()


def _ns(value: m.timeval) -> int:
    return value.tv_sec * 1_000_000_000 + value.tv_usec * 1000


def _put(fd: int, chunk: Entry[m.Message]) -> None:
    assert isinstance(chunk.message, m.ghost_chunk_entry)
    view = memoryview(chunk.payload)
    at = chunk.message.off
    while view:
        n_bytes = os.pwrite(fd, view, at)
        view, at = view[n_bytes:], at + n_bytes


def _create(entry: m.ghost_file_entry, reg: m.reg_file_entry, ghost_id: int, context: RestoreContext) -> int:
    """Make the inode, open it with O_PATH, and take its name away."""
    root, name = context.files.maker_of(reg) or context.files.place_of_reg(reg)
    with paths.MissingParents(root, name) as parents:
        if reg.flags & paths.O_TMPFILE_ONLY and stat.S_ISREG(entry.mode):
            # Such a file may be given a name later (linkat), which one that was unlinked may not.
            flags = reg.flags & ~(os.O_ACCMODE | os.O_DIRECT) | os.O_RDWR | os.O_TMPFILE
            with OwnedFd(os.open(".", flags | os.O_CLOEXEC, 0o600, dir_fd=parents.directory)) as fd:
                return os.open(f"/proc/self/fd/{fd.fileno()}", O_PATH | os.O_CLOEXEC)
        for candidate in paths.free_names(parents.last):
            try:
                _make_node(entry, candidate, parents.directory)
            except FileExistsError:
                continue
            try:
                made = os.open(candidate, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parents.directory)
                if not stat.S_ISDIR(entry.mode):
                    context.part(Restored).add_names(made, ghost_id)
                return made
            finally:
                (os.rmdir if stat.S_ISDIR(entry.mode) else os.unlink)(candidate, dir_fd=parents.directory)
    raise RestoreError(f"{name}: no name beside it is free for a deleted file")


def _make_node(entry: m.ghost_file_entry, name: str, directory: int) -> None:
    if stat.S_ISDIR(entry.mode):
        os.mkdir(name, 0o700, dir_fd=directory)
    elif stat.S_ISLNK(entry.mode):
        os.symlink(get_text(entry.symlnk_target), name, dir_fd=directory)
    elif stat.S_ISREG(entry.mode):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory))
    elif stat.S_ISFIFO(entry.mode) or stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        device = os.makedev(entry.rdev >> 20, entry.rdev & 0xFFFFF)
        if not stat.S_ISFIFO(entry.mode) and not paths.is_plain_number(entry.mode, device):
            raise RestoreError(
                f"ghost-file image: rdev: {paths.describe_device(entry.mode, device)} is not made again",
                hint="close it before the checkpoint",
            )
        os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, device, dir_fd=directory)
    else:
        raise ImageError(f"a ghost file of mode {entry.mode:o}")
