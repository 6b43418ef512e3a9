"""New file systems, as detached mounts, with the options that an image says."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from torpor.base.errors import RestoreError, TorporError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text
from torpor.kernel import lsm
from torpor.kernel import mount as mounts
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWUSER
from torpor.kernel.openat2 import open_in_root
from torpor.kernel.pidfd import getfd
from torpor.objects.ns.mnt import filesystems
from torpor.objects.ns.model import NsRestore
from torpor.tracee.batch import Batch

#: Of an option, in bytes: what fsconfig(2) takes (strndup_user of 256, with the end).
LONGEST_VALUE = 255
#: Options by which SELinux gives a mount its label.
_LABELS = ("context", "fscontext", "defcontext", "rootcontext")
_LAYERS = ("lowerdir", "upperdir", "workdir", "datadir")


def make_filesystem(session: NsRestore, entry: m.mnt_entry) -> int:
    """A new file system, as a detached mount of it."""
    check(session, entry)
    context = mounts.fsopen(type_of(entry))
    try:
        mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "source", _source_of(entry, session.external))
        for key, value in options_of(entry, session.label):
            if value is None:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_FLAG, key)
            else:
                mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, key, value)
        mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
        return mounts.fsmount(context, 0)
    finally:
        os.close(context)


def check(session: NsRestore, entry: m.mnt_entry) -> None:
    """RestoreError or ImageError for a file system that the image alone asks for and the caller has not allowed.

    In a user namespace of the tree's own the kernel knows what its root may mount.
    """
    name = type_of(entry)
    kind = filesystems.BY_CODE.get(entry.fstype)
    where = f"mountpoints-{session.ident}.img: {get_text(entry.mountpoint)}"
    enabled = () if session.context is None else session.context.policies.mounts.enabled_filesystems
    is_allowed = {name, "all"} & set(enabled) or session.flags & CLONE_NEWUSER
    is_given = any(text.startswith(f"dev[{get_text(entry.source)}]:") for text in session.external)
    if kind is None or kind.is_host_s:
        if not is_allowed and not is_given:
            raise RestoreError(
                f"{where}: fstype: {name} ({get_text(entry.source)}) is not mounted because an image says so",
                hint=f"--enable-fs {name} allows it (torpor restore: --trust)",
            )
        return
    for key, _ in options_of(entry, ""):
        is_known = key in kind.options or key in filesystems.ANY_OPTIONS
        if not is_known and not (kind.name == "cgroup" and key.replace("_", "").isalpha()):
            raise ImageError(f"{where}: options: {key!r} is no option of {kind.name} that is restored")


def _source_of(entry: m.mnt_entry, external: tuple[str, ...]) -> str:
    source = get_text(entry.source) or "none"
    wanted = f"dev[{source}]:"
    return next((text[len(wanted) :] for text in external if text.startswith(wanted)), source)


def check_layers(root_fd: int, entry: m.mnt_entry) -> None:
    """ImageError for layers of an overlay to which a link of proc leads, out of the namespace with that root."""
    for key, path in layers_of(entry):
        try:
            os.close(open_in_root(root_fd, path, os.O_PATH))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                where = get_text(entry.mountpoint)
                raise ImageError(f"{where}: options: {key}: {path} leads elsewhere") from None


def layers_of(entry: m.mnt_entry) -> Iterator[tuple[str, str]]:
    """The directories that an overlay is made of: option and path."""
    for word in split_options(get_text(entry.options)):
        key, _, value = word.partition("=")
        if key.rstrip("+") in _LAYERS:
            for path in filter(None, re.split(r"(?<!\\):", value.strip('"'))):
                yield key, path.replace("\\:", ":")


def type_of(entry: m.mnt_entry) -> str:
    """The kernel's name of the file system type."""
    if entry.fstype == filesystems.AUTO and entry.HasField("fsname"):
        return get_text(entry.fsname)
    kind = filesystems.BY_CODE.get(entry.fstype)
    if kind is None:
        raise RestoreError(
            f"{entry.mountpoint} is of a file system type (number {entry.fstype}) that cannot be mounted",
            hint=f"name it with --external mnt[{entry.mountpoint}]:KEY at the dump",
        )
    return kind.name


def options_of(entry: m.mnt_entry, context: str) -> list[tuple[str, str | None]]:
    """The file system's options as fsconfig(2) takes them; None for one without a value.

    *context* takes the place of a security label, unless it is empty.
    """
    kind = filesystems.BY_CODE.get(entry.fstype)
    has_contents = kind is not None and kind.restore is not None
    flags = entry.sb_flags & ~mounts.MS_RDONLY if has_contents else entry.sb_flags
    has_labels = lsm.active() == lsm.SELINUX
    words = split_options(get_text(entry.options)) + filesystems.super_flag_names(flags)
    found: list[tuple[str, str | None]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "release_agent":
            continue  # the hierarchy is there, and has what the host has given it
        if key == "seclabel" or (key in _LABELS and not has_labels):
            continue  # said by SELinux of whatever can have labels; other kernels do not know them
        if key == "context" and context:
            value = context
        found.append((key, value.strip('"') if equals else None))
    return found


def split_options(text: str) -> list[str]:
    """Options as mountinfo has them: commas between, but not within double quotes (as a label's)."""
    words: list[str] = []
    for number, part in enumerate(text.split('"')):
        if number % 2:
            words[-1] += part
        else:
            first, *others = part.split(",")
            words = [*words[:-1], (words[-1] if words else "") + first, *others]
    return [word for word in words if word]


def is_made_by_puppet(entry: m.mnt_entry, flags: int) -> bool:
    """Whether only a process of the tree can make it, in whose pid namespace we are not.

    With a user namespace, all others are: a file system belongs to that of its maker, with its ids.
    """
    kind = filesystems.BY_CODE.get(entry.fstype)
    return kind is not None and bool(kind.by_puppet or (flags & CLONE_NEWUSER and not kind.is_of_machine))


def make_by_puppet(session: NsRestore, entry: m.mnt_entry) -> int:
    """As ``make_filesystem``, but made by the root puppet."""
    check(session, entry)
    runner = session.runner
    batch = Batch()
    context = batch.call(nr.fsopen, batch.path(type_of(entry)), 1)
    runner.run(batch)
    batch = Batch()
    for key, value in [("source", _source_of(entry, ())), *options_of(entry, session.label)]:
        command = mounts.FSCONFIG_SET_FLAG if value is None else mounts.FSCONFIG_SET_STRING
        text = 0 if value is None else batch.path(value)
        batch.call(nr.fsconfig, context.value, command, batch.path(key), text, 0)
    batch.call(nr.fsconfig, context.value, mounts.FSCONFIG_CMD_CREATE, 0, 0, 0)
    made = batch.call(nr.fsmount, context.value, 1, 0)
    batch.call(nr.close, context.value)
    try:
        runner.run(batch)
    except TorporError as error:
        error.add_note(f"{get_text(entry.mountpoint)} is of {type_of(entry)}")
        raise
    fd = getfd(session.pidfd, made.value)
    batch = Batch()
    batch.call(nr.close, made.value)
    runner.run(batch)
    return fd
