"""The mounts of a namespace as image entries: which are the host's, which are made anew, which bind others."""

from __future__ import annotations

import os
import stat

from torpor.base import log
from torpor.base.errors import RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field, replace
from torpor.images import messages as m
from torpor.images.store import store_all
from torpor.images.text import set_text
from torpor.kernel.idmap import IDENTITY
from torpor.kernel.openat2 import open_in_root
from torpor.kernel.procfs.mountinfo import Mount, read_mountinfo
from torpor.objects.files.paths import is_below
from torpor.objects.model import DumpProcess
from torpor.objects.ns.mnt import filesystems, make, propagation
from torpor.objects.ns.mnt.external import AUTODETECTED, keys_by_point
from torpor.objects.ns.mnt.views import View, open_mount, read_view
from torpor.objects.ns.model import NsDump
from torpor.objects.session import DumpContext, DumpStage

_MINOR_BITS = 20
_DELETED = "//deleted"
#: Where Podman and Docker bind a container's secrets.
_SECRETS = "/run/secrets/"
_IDMAPPED = "idmapped"
_Device = tuple[int, int]


@dataclass(slots=True)
class Contents:
    """A file system whose contents are dumped, and the mounts that show it."""

    kind: filesystems.Filesystem
    mounts: list[tuple[View, Mount]] = field(default_factory=list)

    def widest(self) -> list[tuple[View, Mount]]:
        """Mounts that together show all that is mounted of it."""
        chosen: list[tuple[View, Mount]] = []
        for view, mount in sorted(self.mounts, key=lambda place: len(place[1].root)):
            if not any(is_below(mount.root, other.root) for _, other in chosen):
                chosen.append((view, mount))
        return chosen


class MountDump:
    """What the mount namespaces of a tree have in common."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self.policy = context.policies.mounts
        self.host = read_mountinfo("self")
        #: Of mounts that were looked at while the tree runs: the groups of each, and its point.
        self.groups: list[tuple[tuple[int, int], str]] = []
        #: Roots of what binds can be made of: (file system, the part that is shown).
        self.bases: list[tuple[_Device, str]] = []
        self.contents: dict[_Device, Contents] = {}
        self.n_views = 0
        self.has_root = False
        self.idmaps = IDENTITY
        context.at(DumpStage.WRITTEN, self._dump_contents)

    def _dump_contents(self) -> None:
        for device, contents in self.contents.items():
            if contents.kind.dump is None:
                continue
            opened = [(open_mount(view, mount), mount.root) for view, mount in contents.widest()]
            try:
                contents.kind.dump(self._context.store, opened, device[0] << _MINOR_BITS | device[1], self.idmaps)
            finally:
                for fd, _ in opened:
                    os.close(fd)


def dump(session: NsDump) -> None:
    """mountpoints-ID.img; the contents of what lives in memory follow when all namespaces are known."""
    assert session.context is not None
    shared = session.context.part(MountDump)
    shared.idmaps = session.idmaps
    view = _read(session.pid, session.pidfd, shared)
    is_first = shared.n_views == 0 and _is_of_root(session)
    shared.n_views += 1
    entries = classify(view, shared, session.external, has_root=is_first)
    for mount, entry in zip(view.mounts, entries, strict=True):
        if entry.HasField("ext_key") and (missed := _will_be_missed(mount)):
            log.warn(missed)
    # CRIU writes them in the reverse of the order in which they were mounted.
    store_all(session.store, "MNTS", entries[::-1], session.ident)


def _will_be_missed(mount: Mount) -> str:
    """What is said of an external mount that a container's engine may not find at the restore."""
    if mount.is_deleted:
        return f"{mount.point}: what is bound there has been removed from its place ({mount.root}): make it again"
    if mount.point.startswith(_SECRETS) and "/secrets/" in mount.root:
        return f"{mount.point} is a secret, which an engine may leave out of an archive: have it where it is restored"
    return ""


def check(process: DumpProcess, context: DumpContext, *, is_ended: bool) -> None:
    """RefusedError for a mount in the namespace of *process*, which runs on, that could not be mounted again.

    *is_ended*: the dump is going to end the tree, so that what this kernel could not make again would be lost.
    """
    assert process.pidfd is not None
    shared = context.part(MountDump)
    view = _read(process.pid, process.pidfd.fileno(), shared)
    classify(view, shared, context.policies.external, has_root=process is context.processes[0])
    if is_ended:
        shared.groups += [((mount.shared, mount.master), mount.point) for mount in view.mounts]
        propagation.check_found(shared.groups)


def _read(pid: Pid, pidfd: int, shared: MountDump) -> View:
    view = read_view(pid, pidfd)
    found = without_skipped(without_hidden(view.mounts, shared.host), shared.policy.skipped_mounts)
    return replace(view, mounts=[_without_deleted(mount) for mount in found])


def _is_of_root(session: NsDump) -> bool:
    assert session.context is not None
    root = session.context.processes[0]
    return root.ids.mnt_ns_id == session.ident


def classify(view: View, shared: MountDump, external: tuple[str, ...], *, has_root: bool) -> list[m.mnt_entry]:
    """The entries of all mounts of *view*; RefusedError for one that could not be mounted again.

    With *has_root*, its root is whatever the restore is told.
    """
    shared.has_root |= has_root
    # A process in another namespace than the root's may have anything at that place.
    keys = keys_by_point(external) if has_root or not shared.has_root else {}
    root = view.root if has_root else None
    entries = [_entry(mount, shared) for mount in view.mounts]
    if root is not None:
        shared.bases.append((root.device, root.root))
    for mount, entry in zip(view.mounts, entries, strict=True):
        if mount is not root:
            check_ids(view.pid, mount, shared.host)
        if mount.is_deleted:
            _check_deleted(view, mount)
        if mount is not root and mount.point in keys:
            set_text(entry, "ext_key", keys[mount.point])
            shared.bases.append((mount.device, mount.root))
    for mount, entry in zip(view.mounts, entries, strict=True):
        if mount is root or entry.HasField("ext_key") or _has_base(mount, shared):
            continue
        is_own = entry.deleted or mount.mount_id in view.inner
        source = None if is_own else host_path(mount, shared.host)
        if source is not None:
            entry.ext_key = AUTODETECTED
            entry.ClearField("source")
            set_text(entry, "source", source)
            continue
        kind = _kind_of(view, mount, entry, shared, external)
        _check_options(view, mount, entry)
        if entry.fstype == filesystems.OVERLAY:
            _check_layers(view, mount, entry)
        contents = shared.contents.get(mount.device)
        if contents is None:
            contents = shared.contents[mount.device] = Contents(kind)
            if kind.prepare is not None:
                kind.prepare()
        if not entry.deleted:
            contents.mounts.append((view, mount))
    return entries


def _check_deleted(view: View, mount: Mount) -> None:
    with OwnedFd(open_mount(view, mount)) as fd:
        if os.fstat(fd.fileno()).st_size and not stat.S_ISDIR(os.fstat(fd.fileno()).st_mode):
            raise RefusedError(
                f"{mount.point} in the mount namespace of pid {view.pid} shows a deleted file, whose contents are not "
                "carried",
                hint=f"leave it out with --skip-mnt {mount.point}",
            )


def check_ids(pid: Pid, mount: Mount, host: list[Mount]) -> None:
    """RefusedError for a mount with a map of ids of its own, which a copy of what the host has would not have."""
    if _IDMAPPED not in mount.options:
        return
    here = [other for other in host if (other.device, other.point) == (mount.device, mount.point)]
    if not any(_IDMAPPED in other.options for other in here):
        raise RefusedError(
            f"{mount.point} in the mount namespace of pid {pid} is an idmapped mount, whose map is not carried yet",
            hint=f"leave it out with --skip-mnt {mount.point}",
        )


def _check_options(view: View, mount: Mount, entry: m.mnt_entry) -> None:
    """RefusedError for a file system to be made anew with an option that fsconfig(2) does not take: mount(2) does."""
    for key, value in make.options_of(entry, ""):
        if value is not None and len(os.fsencode(value)) > make.LONGEST_VALUE:
            raise RefusedError(
                f"{mount.point} in the mount namespace of pid {view.pid} is a mount of {mount.fstype}, whose {key} has "
                f"more than {make.LONGEST_VALUE} bytes: it could not be mounted again",
                hint=f"mount it by shorter names, name it with --external mnt[{mount.point}]:KEY, or leave it out with "
                f"--skip-mnt {mount.point}",
            )


def _check_layers(view: View, mount: Mount, entry: m.mnt_entry) -> None:
    """RefusedError for an overlay that is to be made anew, but whose layers are not in its namespace.

    So are those that an engine mounts for a container, which has no way to them (Podman: ``-v DIR:/data:O``).
    """
    with OwnedFd(os.open(f"/proc/{view.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        for key, path in make.layers_of(entry):
            try:
                os.close(open_in_root(root.fileno(), path, os.O_PATH))
            except (FileNotFoundError, NotADirectoryError):
                raise RefusedError(
                    f"{mount.point} in the mount namespace of pid {view.pid} is an overlay, whose {key} {path} is not "
                    "to be found there: it could not be mounted again",
                    hint="have a plain volume or bind mount there (podman: without :O or type=image), name it with "
                    f"--external mnt[{mount.point}]:KEY, or leave it out with --skip-mnt {mount.point}",
                ) from None


def _has_base(mount: Mount, shared: MountDump) -> bool:
    return any(mount.device == device and is_below(mount.root, root) for device, root in shared.bases)


def _kind_of(
    view: View, mount: Mount, entry: m.mnt_entry, shared: MountDump, external: tuple[str, ...]
) -> filesystems.Filesystem:
    """The kind of file system, which is made anew; RefusedError where that cannot be."""
    kind = filesystems.BY_NAME.get(mount.fstype)
    if kind is not None:
        return kind
    device = device_key(mount, external)
    if device is None and not {mount.fstype, "all"} & set(shared.policy.enabled_filesystems):
        raise RefusedError(
            f"{mount.point} in the mount namespace of pid {view.pid} is a mount of {mount.fstype} "
            f"({mount.source}) that is not to be found on the host",
            hint=f"name it with --external mnt[{mount.point}]:KEY, leave it out with --skip-mnt {mount.point}, "
            f"or allow its type with --enable-fs {mount.fstype}",
        )
    entry.fstype = filesystems.AUTO
    set_text(entry, "fsname", mount.fstype)
    if device is not None:
        entry.ClearField("source")
        set_text(entry, "source", device)
    return filesystems.Filesystem(filesystems.AUTO, mount.fstype)


def device_key(mount: Mount, external: tuple[str, ...]) -> str | None:
    """KEY of ``--external dev[MAJOR/MINOR]:KEY``, if that names the device that the file system is on."""
    wanted = f"dev[{mount.major}/{mount.minor}]:"
    return next((text[len(wanted) :] for text in external if text.startswith(wanted)), None)


def _without_deleted(mount: Mount) -> Mount:
    return replace(mount, root=mount.root.removesuffix(_DELETED), is_deleted=mount.root.endswith(_DELETED))


def without_hidden(found: list[Mount], host: list[Mount]) -> list[Mount]:
    """*found* without mounts of the host's that nobody can see, there as here: others cover them or their place."""
    devices = {mount.device for mount in host}
    places = {(mount.parent_id, mount.point) for mount in found}
    gone: dict[int, Mount] = {}
    out_of_reach: set[int] = set()
    for mount in found:
        below = gone.get(mount.parent_id)
        # What covers one that is gone lies at its very place; to all else that is on it no path leads.
        is_beneath = below is not None and (below.mount_id in out_of_reach or mount.point != below.point)
        is_covered = (mount.mount_id, mount.point) in places
        if (is_beneath or is_covered) and mount.device in devices and host_path(mount, host) is None:
            gone[mount.mount_id] = mount
            if is_beneath:
                out_of_reach.add(mount.mount_id)
    left = []
    for mount in found:
        parent = mount.parent_id
        while parent in gone:
            parent = gone[parent].parent_id
        if mount.mount_id not in gone:
            left.append(replace(mount, parent_id=parent))
    return left


def without_skipped(found: list[Mount], points: tuple[str, ...]) -> list[Mount]:
    """*found* without those at *points*, and without what is mounted on these."""
    gone: set[int] = set()
    left = []
    for mount in found:
        if mount.parent_id in gone or mount.point in points:
            gone.add(mount.mount_id)
        else:
            left.append(mount)
    return left


def host_path(mount: Mount, host: list[Mount]) -> str | None:
    """Where we see what *mount* shows: the same place if possible, any other otherwise; None if nowhere."""
    candidates = [other for other in host if other.device == mount.device and is_below(mount.root, other.root)]
    candidates.sort(key=lambda other: other.point != mount.point)
    for other in candidates:
        path = os.path.normpath(f"{other.point}/{mount.root[len(other.root) :]}")
        try:
            info = os.lstat(path)
        except OSError:
            continue
        # What lies under another mount cannot be reached; file systems with several devices cannot be told this way.
        if (os.major(info.st_dev), os.minor(info.st_dev)) == other.device or other.fstype in ("btrfs", "overlay"):
            return path
    return None


def _entry(mount: Mount, shared: MountDump) -> m.mnt_entry:
    entry = m.mnt_entry(
        fstype=filesystems.code_of(mount.fstype), mnt_id=mount.mount_id,
        root_dev=mount.major << _MINOR_BITS | mount.minor, parent_mnt_id=mount.parent_id,
        flags=filesystems.mount_flags(mount), sb_flags=filesystems.super_flags(mount),
        shared_id=mount.shared, master_id=mount.master,
    )  # fmt: skip
    texts = {
        "root": mount.root, "mountpoint": mount.point, "source": mount.source,
        "options": filesystems.super_options(mount, shared.idmaps),
    }  # fmt: skip
    for name, text in texts.items():
        try:
            setattr(entry, name, text)
        except ValueError:
            set_text(entry, name, text)
    if mount.shared and all(other.shared != mount.shared for other in shared.host):
        entry.internal_sharing = True
    if mount.is_deleted:
        entry.deleted = True
    return entry
