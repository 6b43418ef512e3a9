"""Files with a name: regular files, directories, device nodes that need no care.

Kernel view
    The link in ``/proc/PID/fd``, fstat(2), fdinfo's offset and flags.
Image
    ``reg_file_entry``; where the name is gone, ``remap-fpath.img`` says what stands for it (ghost.py, linked.py,
    deadproc.py).
Restore
    open(2) below the task's root, then lseek(2).
Limits
    A mount that is nowhere, of which nothing but a descriptor is left, is refused where it can be told.
    F_NOTIFY of a directory is lost: the kernel tells of its owner only, and that is told.
    Mode, and size unless the file is only appended to, are compared at restore, and what code it is (``validation``): a
    file that has shrunk or grown is not the file that was open or mapped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import TreePid
from torpor.images import messages as m
from torpor.images.errors import ImageMissing
from torpor.images.store import load_all
from torpor.images.text import get_text
from torpor.kernel import lsm
from torpor.kernel.mount import filesystem_type, open_tree
from torpor.kernel.namespaces import CLONE_NEWNS, inside
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.kernel.uapi.magic import SELINUX_MAGIC
from torpor.objects.files import deadproc, fown, ghost, linked, settings, validation
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.paths import (
    DELETED,
    O_TMPFILE_ONLY,
    is_ordinary,
    is_plain_device,
    is_there,
    locate,
    open_below,
    reopen,
    roots_of,
    set_name,
)
from torpor.objects.session import DumpContext, DumpStage, RestoreContext

_ONCE = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY
#: What can be opened with these by its name alone.
_BY_NAME = O_PATH | O_TMPFILE_ONLY | os.O_NOFOLLOW
_NO_POSITION = (1 << 64) - 1
_NFS_SILLY = ".nfs"
_NFS_SILLY_DIGITS = 24


def matches(file: OpenFile) -> bool:
    """Anything with a path that is a regular file, a directory, or opened with O_PATH; and plain devices."""
    mode = file.stat.st_mode
    return file.target.startswith("/") and (
        stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_plain_device(file.stat) or bool(file.flags & O_PATH)
    )


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.reg``, the name and what a restore compares; what stands for a lost name is dumped, too."""
    reg = entry.reg
    reg.id, reg.flags, reg.pos = entry.id, file.flags, file.pos
    fown.fill(reg.fown, file)
    common = context.part(_Common)
    if not common.fill(file, reg):
        _dump_file(file, entry, context)
        common.note(file, reg, context)


def _dump_file(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """What is of the file, not of the description."""
    reg = entry.reg
    external = _external_name(file, context)
    if external:
        reg.ext = True
        set_name(reg, "name", external)
        return
    _check_attached(file, context)
    _check_setting(file, context)
    if lost := _trigger(file, context) or _notified(file):
        log.warn(lost)
    same = _same_device(file, context)
    if same is not None:
        name, info = same
        reg.mode = info.st_mode
        set_name(reg, "name", name)
        return
    reg.mode = file.stat.st_mode
    if stat.S_ISREG(file.stat.st_mode):
        if _has_fixed_size(reg.flags):
            reg.size = file.stat.st_size
            validation.dump(file, reg, context)
        else:
            reg.torpor_size = file.stat.st_size
    if roots_of(context).has_own(file.process.pid):
        reg.mnt_id = file.mount_id
    set_name(reg, "name", _find_name(file, entry.id, context))


class _Common:
    """What entries of one file say alike: it is found once for a thousand descriptions of /dev/null.

    Of files that are there by their names, and of which nothing has to be refused, or told.
    """

    def __init__(self, _context: DumpContext) -> None:
        self._known: dict[object, m.reg_file_entry] = {}

    @staticmethod
    def _look(file: OpenFile) -> object:
        return file.process.pid, file.mount_id, file.flags, file.target, file.stat[: stat.ST_SIZE + 1]

    def fill(self, file: OpenFile, reg: m.reg_file_entry) -> bool:
        """Add to *reg* what is known of *file*; whether it is."""
        found = self._known.get(self._look(file)) if file.number >= 0 else None
        if found is not None:
            reg.MergeFrom(found)
        return found is not None

    def note(self, file: OpenFile, reg: m.reg_file_entry, context: DumpContext) -> None:
        """Know *reg* for others, if they would be alike."""
        if (
            file.number < 0
            or reg.ext
            or stat.S_ISDIR(file.stat.st_mode)
            or _is_silly(file.target.rpartition("/")[2])
            or not is_there(file, file.target, context)
            or _kind_of_setting(file, context)
        ):
            return
        found = self._known[self._look(file)] = m.reg_file_entry()
        found.CopyFrom(reg)
        for own in ("id", "flags", "pos", "fown"):
            found.ClearField(own)


def _same_device(file: OpenFile, context: DumpContext) -> tuple[str, os.stat_result] | None:
    """The name and node of the same plain device inside, for one that was opened outside and handed in.

    So has ``podman exec`` its /dev/null, and whoever had a descriptor that its domain may not use: SELinux has put a
    null device of its own there (flush_unauthorized_files() in security/selinux/hooks.c).  None where the very file is
    there, or nothing stands for it.
    """
    if not is_plain_device(file.stat):
        return None
    name = file.target
    if os.path.basename(name) == "null" and _is_selinux_s(file):
        name = "/dev/null"
    elif is_there(file, name, context):
        return None
    where, dir_fd = locate(roots_of(context).of_file(file), name)
    try:
        found = os.stat(where, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return None
    return (name, found) if stat.S_ISCHR(found.st_mode) and found.st_rdev == file.stat.st_rdev else None


def _is_selinux_s(file: OpenFile) -> bool:
    return lsm.active() == lsm.SELINUX and filesystem_type(_path_of(file)) == SELINUX_MAGIC


def _path_of(file: OpenFile) -> str:
    """Where it can be looked at: what is only looked at before the freeze has no descriptor of ours."""
    return f"/proc/self/fd/{file.fd}" if file.fd >= 0 else f"/proc/{file.process.pid}/fd/{file.number}"


def _name_by_inode(file: OpenFile) -> str:
    return f"file[{int(file.info('mnt_id')):x}:{file.stat.st_ino:x}]"


def _external_name(file: OpenFile, context: DumpContext) -> str:
    """What ``--external`` calls the file, if it does: ``file[MNT_ID:INODE]``, both hexadecimal."""
    if not context.policies.external or file.number < 0:
        return ""
    name = _name_by_inode(file)
    return name if name in context.policies.external else ""


def _check_attached(file: OpenFile, context: DumpContext) -> None:
    """RefusedError for a mount that is nowhere (open_tree(2) with OPEN_TREE_CLONE, fsmount(2)).

    So looks the root of one that was taken away (umount -l), too, or of one of somebody else's.  Of the first alone the
    kernel makes a copy (since 6.15); before, it cannot be told.
    """
    own = file.number < 0 and not file.in_flight
    if own or file.target != "/" or not file.flags & O_PATH:
        return
    process = file.process
    if roots_of(context).has_mount(process.pid, file.mount_id) or process.pidfd is None:
        return
    place = f"/proc/self/fd/{file.fd}" if file.fd >= 0 else f"/proc/{process.pid}/fd/{file.number}"
    try:
        with OwnedFd(os.open(place, O_PATH | os.O_CLOEXEC)) as fd:
            os.close(inside(process.pidfd.fileno(), CLONE_NEWNS, lambda: open_tree(fd.fileno(), "")))
    except OSError:
        return
    raise file.refuse(
        "a mount that is nowhere (open_tree(2), fsmount(2))",
        hint=f"attach or close it, or hand it in: --external {_name_by_inode(file)} and, at the restore, --inherit-fd",
    )


def _kind_of_setting(file: OpenFile, context: DumpContext) -> int:
    """The kind of file system that it is written to on, if something may be set that way; else 0."""
    if not settings.writes(file.flags) or file.target.endswith(DELETED) or is_plain_device(file.stat):
        return 0
    return context.part(settings.Kinds).find(file.stat.st_dev, _path_of(file))


class _DumpedPids:
    """The tree's processes, by the numbers that a proc may have for them; asked for when all are known."""

    def __init__(self, context: DumpContext) -> None:
        self.all = {pid for process in context.processes for pid in (process.pid, process.ns_pid)}


def _check_setting(file: OpenFile, context: DumpContext) -> None:
    """RefusedError for a file by which something outside of the tree is set; it may have to wait for all processes."""
    kind = _kind_of_setting(file, context)
    if not kind:
        return
    where, _, name = file.target.rpartition("/")
    place, dir_fd = locate(roots_of(context).of_file(file), where or "/")
    found = settings.set_by(
        kind, file.stat.st_dev, name, lambda: os.open(place, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    )
    if found is None:
        return
    refusal = file.refuse(
        f"{file.target}, open for writing, sets "
        + (f"pid {found}, which is outside of the tree" if isinstance(found, int) else found),
        hint=f"close it, or hand it in: --external {_name_by_inode(file)} and, at the restore, --inherit-fd",
    )

    def check() -> None:
        if found not in context.part(_DumpedPids).all:
            raise refusal

    context.at(DumpStage.KNOWN, check)


def _notified(file: OpenFile) -> str:
    """What is said of a directory of whose changes signals may tell: who gets them is all that there is of F_NOTIFY."""
    own = file.number < 0 and not file.in_flight
    if own or not stat.S_ISDIR(file.stat.st_mode) or file.flags & O_PATH or not fown.owner_of(file.fd)[1]:
        return ""
    return f"{file.describe()}: signals of changes in {file.target} (F_NOTIFY), if any were asked for, are lost"


def _trigger(file: OpenFile, context: DumpContext) -> str:
    """What is said of a trigger that may be lost."""
    if not settings.has_trigger(_kind_of_setting(file, context), file.target):
        return ""
    return f"{file.describe()}: {file.target}: what it was told to wait for, if it was, is lost"


def _has_fixed_size(flags: int) -> bool:
    """A file that is only appended to may grow meanwhile (a log)."""
    return not (flags & os.O_ACCMODE == os.O_WRONLY and flags & os.O_APPEND)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse deleted files that the policy has not."""
    target = file.target
    name = target.removesuffix(DELETED)
    if _external_name(file, context):
        return
    _check_attached(file, context)
    _check_setting(file, context)
    if lost := _trigger(file, context) or _notified(file):
        context.noticed.lose(lost)
    if _same_device(file, context) is not None or is_there(file, target, context):
        return
    if roots_of(context).is_proc(file.process.pid, file.stat.st_dev):
        return
    if linked.is_gone(file, name, context):
        ghost.check(file, context)
    else:
        linked.check(file, name, context)


def _find_name(file: OpenFile, file_id: int, context: DumpContext) -> str:
    """The name to restore *file* by; what it takes beyond the name is dumped as well."""
    target = file.target
    silly = _is_silly(target.rpartition("/")[2])
    if not silly and is_there(file, target, context):
        return target
    name = target.removesuffix(DELETED)
    if roots_of(context).is_proc(file.process.pid, file.stat.st_dev):
        deadproc.dump(file, name, file_id, context)
    elif linked.is_gone(file, name, context):
        ghost.dump(file, file_id, context)
    elif target != name or silly or not context.policies.files.link_remap:
        return linked.dump(file, name, file_id, context)
    else:
        raise file.refuse(f"{target} is not the file that was opened by that name", hint="is it mounted over?")
    return name


def _is_silly(name: str) -> bool:
    """Whether NFS has given the name to a deleted file that is still open."""
    digits = name.removeprefix(_NFS_SILLY)
    return len(digits) == _NFS_SILLY_DIGITS == len(name) - len(_NFS_SILLY) and not digits.strip("0123456789abcdef")


class Remaps:
    """What stands for each file whose name is gone, by the file's id: ``remap-fpath.img``, read once."""

    def __init__(self, context: RestoreContext) -> None:
        try:
            entries = load_all(context.store, "REMAP_FPATH")
        except ImageMissing:
            entries = []
        self.by_file: dict[int, m.remap_file_path_entry] = {}
        for entry in entries:
            assert isinstance(entry, m.remap_file_path_entry)
            self.by_file[entry.orig_id] = entry


def restore(
    entry: m.file_entry, context: RestoreContext, may_be: Callable[[os.stat_result], bool] = is_ordinary
) -> int:
    """Open the file, if it is what *may_be* knows, and set its offset."""
    reg = entry.reg
    if reg.flags & O_PATH and stat.S_ISSOCK(reg.mode):
        _make_sockets(context)
    # O_ASYNC has no meaning here, but only open(2) can set it.
    flags = reg.flags & ~_ONCE
    fd = _open_ordinary(reg, flags, context) if may_be is is_ordinary else open_file(reg, flags, context, may_be)
    try:
        _check(reg, fd, context)
        if reg.pos and reg.pos != _NO_POSITION and not reg.flags & O_PATH:
            os.lseek(fd, reg.pos, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


class _Opened:
    """Descriptors of files that are open already: of a thousand descriptions of /dev/null one is looked up."""

    def __init__(self, _context: RestoreContext) -> None:
        #: By the mount and the name of each, and how it is opened; ``FileRestore`` has them until all is there.
        self.fds: dict[tuple[int, str, int], int] = {}


def _open_ordinary(reg: m.reg_file_entry, flags: int, context: RestoreContext) -> int:
    if reg.ext or flags & _BY_NAME or reg.id in context.part(Remaps).by_file:
        return open_file(reg, flags, context)
    opened, key = context.part(_Opened).fds, (reg.mnt_id, reg.name, flags)
    if key in opened:
        with suppress(FileNotFoundError):  # in a mount namespace whose /proc does not know of us
            return reopen(opened[key], flags | os.O_NOCTTY)
    fd = opened[key] = open_file(reg, flags, context)
    return fd


def _make_sockets(context: RestoreContext) -> None:
    """Have the sockets of the tree bound: the name of one is that of its earlier file until then, which goes."""
    from torpor.objects.files.socket.unix_state import EXTERN

    for entry in context.files.entries.values():
        if entry.type == m.fd_types.UNIXSK and not entry.usk.uflags & EXTERN:
            context.files.open(entry.id)


def open_file(
    reg: m.reg_file_entry,
    flags: int,
    context: RestoreContext,
    may_be: Callable[[os.stat_result], bool] = is_ordinary,
) -> int:
    """Open what *reg* names, or what stands for it, with *flags*; the caller owns it."""
    if reg.ext:
        raise RestoreError(
            f"{get_text(reg.name)} is an external file", hint=f"give one with --inherit-fd fd[N]:{get_text(reg.name)}"
        )
    remap = context.part(Remaps).by_file.get(reg.id)
    if flags & O_TMPFILE_ONLY:
        flags &= ~os.O_TMPFILE  # which is O_DIRECTORY as well
    if remap is None:
        return open_below(*context.files.place_of_reg(reg), flags | os.O_NOCTTY, may_be, context.part(_RestoredPids))
    if remap.remap_type == m.remap_type.GHOST:
        return reopen(ghost.keeper(reg, remap.remap_id, context), flags & ~os.O_NOFOLLOW)
    if remap.remap_type == m.remap_type.PROCFS:
        return deadproc.restore(reg, TreePid(remap.remap_id), flags, context)
    return linked.restore(reg, remap.remap_id, flags, context)


class _RestoredPids:
    """The tree's processes, by the numbers that a proc may have for them: more and more of them while they are born."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._known = frozenset[int]()

    def __contains__(self, number: object) -> bool:
        if number not in self._known:
            processes = self._context.processes
            own = {process.ns_pid for process in processes}
            self._known = frozenset(own | {process.pid for process in processes if process.is_born})
        return number in self._known


def _check(reg: m.reg_file_entry, fd: int, context: RestoreContext) -> None:
    info = os.fstat(fd)
    name = get_text(reg.name)
    if reg.HasField("mode"):
        ignored = 0o777 if context.policies.files.skip_file_rwx_check else 0
        if (info.st_mode ^ reg.mode) & ~ignored:
            raise RestoreError(
                f"{name} has mode {info.st_mode:o}, it had {reg.mode:o}", hint="bring the old file back, or its mode"
            )
    validation.check(reg, fd, info, context)


KIND = FileKind(
    "file",
    m.fd_types.REG,
    matches,
    dump,
    restore,
    check=check,
    inherit_name=lambda entry, session: get_text(entry.reg.name),
)
