"""Descriptor tables, and the working directory, root and umask beside them.

Kernel view
    ``/proc/PID/fd``; ``cwd`` and ``root`` links; Umask in status.
Image
    ``fdinfo-ID.img`` per table, ``fs-PID.img``.
Restore
    Descriptors arrive by SCM_RIGHTS in ascending order and are moved into place; fchdir(2), chroot(2), umask(2).
Limits
    The restorer needs a limit on descriptors above the highest number of any table: refused before anything is made.
"""

from __future__ import annotations

import fcntl
import os

from torpor.images import messages as m
from torpor.images.store import load_all, load_one, store_all, store_one
from torpor.images.text import get_text
from torpor.kernel.arch import nr
from torpor.kernel.procfs.task import read_fds
from torpor.kernel.uapi.fcntl import O_PATH
from torpor.objects.files.model import ASK_TASK, OpenFile
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.session import DumpContext, DumpStage, RestoreContext
from torpor.tracee.batch import Batch
from torpor.tracee.puppet import Channel, place


def dump_table(process: DumpProcess, context: DumpContext) -> None:
    """All descriptors of *process*, into its table's image."""
    entries, unknown = [], []
    for number in read_fds(process.pid):
        file_id, flags = context.files.add_descriptor(process, number)
        entry = m.fdinfo_entry(id=file_id, flags=max(flags, 0), type=context.files.type_of(file_id), fd=number)
        if label := context.files.labels.get(file_id):
            entry.xattr_security_selinux = label
        entries.append(entry)
        if flags == ASK_TASK:
            unknown.append(entry)
    if unknown:
        process.questions.append(lambda batch: _ask_flags(unknown, batch))
        context.at(DumpStage.WRITTEN, lambda: store_all(context.store, "FDINFO", entries, process.ids.files_id))
    else:
        store_all(context.store, "FDINFO", entries, process.ids.files_id)


def _ask_flags(entries: list[m.fdinfo_entry], batch: Batch) -> None:
    answers = [(entry, batch.call(nr.fcntl, entry.fd, fcntl.F_GETFD)) for entry in entries]

    def collect() -> None:
        for entry, answer in answers:
            entry.flags = answer.value

    batch.then(collect)


def dump_fs(process: DumpProcess, context: DumpContext) -> None:
    """Working directory, root and umask."""
    entry = m.fs_entry(umask=process.status.umask)
    entry.cwd_id = _dump_directory(process, "cwd", context)
    entry.root_id = _dump_directory(process, "root", context)
    store_one(context.store, "FS", entry, process.ns_pid)


def _dump_directory(process: DumpProcess, name: str, context: DumpContext) -> int:
    path = f"/proc/{process.pid}/{name}"
    # O_PATH opens the directory of a process that is gone from /proc, too.
    fd = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info, target = os.fstat(fd), os.readlink(path)
        file = OpenFile(process, -1, fd, target, info, ["pos:\t0", "flags:\t00"])
        return context.files.add_opened(("directory", file.mount_id, info.st_dev, info.st_ino, target), file)
    finally:
        os.close(fd)


def dump_executable(process: DumpProcess, context: DumpContext) -> int:
    """The file behind /proc/PID/exe; its id."""
    path = f"/proc/{process.pid}/exe"
    fd = os.open(path, O_PATH | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        file = OpenFile(process, -1, fd, os.readlink(path), info, ["pos:\t0", "flags:\t00"])
        # The same description as its mappings' serves as well: both are read-only.
        return context.files.add_opened(("map", process.ids.mnt_ns_id, info.st_dev, info.st_ino, 0), file)
    finally:
        os.close(fd)


def restore_table(process: RestoreProcess, table_id: int, context: RestoreContext, channel: Channel) -> None:
    """Install all descriptors of the table.  The puppet holds nothing but the channel's far end."""
    entries = load_all(context.store, "FDINFO", table_id)
    wanted: list[m.fdinfo_entry] = []
    for entry in entries:
        assert isinstance(entry, m.fdinfo_entry)
        wanted.append(entry)
    wanted.sort(key=lambda entry: entry.fd)
    # What is below /proc/PID/fd and fdinfo is there only once the descriptors are.
    early: list[m.fdinfo_entry] = []
    late: list[m.fdinfo_entry] = []
    for entry in wanted:
        (late if _is_of_descriptor(entry, context) else early).append(entry)
    taken = {channel.far_number}
    step = channel.MOST
    parts = [group[start : start + step] for group in (early, late) for start in range(0, len(group), step)]
    for part in parts:
        fds = [context.files.open(entry.id) for entry in part]
        batch = Batch()
        landed = channel.give(batch, fds, taken)
        place(batch, [(at, entry.fd, bool(entry.flags & 1)) for at, entry in zip(landed, part, strict=True)])
        process.runner.run(batch)
        taken.difference_update(landed)
        taken.update(entry.fd for entry in part)
    for entry in wanted:
        context.files.placed(entry.id, process, entry.fd)


def _is_of_descriptor(entry: m.fdinfo_entry, context: RestoreContext) -> bool:
    if entry.type != m.fd_types.REG:
        return False
    name = get_text(context.files.entry(entry.id).reg.name)
    parts = name.split("/") if name.startswith("/proc/") else []
    return len(parts) > 4 and parts[-2] in ("fd", "fdinfo")


def restore_fs(process: RestoreProcess, context: RestoreContext, channel: Channel, taken: set[int]) -> None:
    """Root, working directory and umask, by descriptors that are closed again."""
    entry = load_one(context.store, "FS", process.ns_pid)
    assert isinstance(entry, m.fs_entry)
    fds = [context.files.open(entry.cwd_id), context.files.open(entry.root_id)]
    batch = Batch()
    cwd, root = channel.give(batch, fds, taken)
    if context.files.entry(entry.root_id).reg.name != "/":
        batch.call(nr.fchdir, root)
        batch.call(nr.chroot, batch.path("."))
    batch.call(nr.fchdir, cwd)
    batch.call(nr.umask, entry.umask)
    batch.call(nr.close, cwd)
    batch.call(nr.close, root)
    process.runner.run(batch)
    taken.difference_update((cwd, root))
