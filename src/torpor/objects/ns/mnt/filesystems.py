"""The kinds of file systems that can be mounted anew, and how mountinfo's flags are written in images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torpor.base.records import dataclass
from torpor.base.typed import TYPE_CHECKING
from torpor.kernel import mount as mounts
from torpor.kernel.idmap import IdMaps
from torpor.kernel.procfs.mountinfo import Mount
from torpor.objects.ns.mnt import binfmt_misc, tmpfs

if TYPE_CHECKING:
    from torpor.images.store import ImageStore

UNSUPPORTED = 0
PROC = 1
SYSFS = 2
TMPFS = 5
AUTO = 16
DEVPTS = 6
OVERLAY = 17

#: Options of a mount, and of a file system, that are flags.
_MOUNT_FLAGS = {
    "ro": mounts.MS_RDONLY, "nosuid": mounts.MS_NOSUID, "nodev": mounts.MS_NODEV, "noexec": mounts.MS_NOEXEC,
    "noatime": mounts.MS_NOATIME, "nodiratime": mounts.MS_NODIRATIME, "relatime": mounts.MS_RELATIME,
    "nosymfollow": mounts.MS_NOSYMFOLLOW,
}  # fmt: skip
_SUPER_FLAGS = {"ro": 1, "sync": 16, "mand": 64, "dirsync": 128, "lazytime": 1 << 25}


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A kind.  ``code`` is the image's number for it; ``extra`` are options to add that mountinfo does not show."""

    code: int
    name: str
    by_puppet: bool = False
    """Made in the tree's pid namespace, which only a process in it can do."""
    extra: Callable[[str], str] | None = None
    options: frozenset[str] = frozenset()
    """Those with which one can be made; whatever else an image says is refused."""
    is_shown_everywhere: bool = False
    """Each mount of it shows the same, but for the namespaces of whoever mounts it."""
    is_of_machine: bool = False
    """There is one, the machine's, which a user namespace may show but not mount."""
    is_host_s: bool = False
    """It shows, and changes, the whole machine: mounted only where the caller allows its type."""
    dump: Callable[[ImageStore, Sequence[tuple[int, str]], int, IdMaps], None] | None = None
    """Dumps what mounts, given with the part that each shows, have of a file system."""
    prepare: Callable[[], None] | None = None
    """Imports what ``dump`` needs: the checks before a tree is stopped have met what there is."""
    restore: Callable[[ImageStore, int, int, IdMaps, bool, Mapping[str, str] | None], None] | None = None
    """Fills one: whether set-uid files and devices may be among what the images have for it, and what labels become."""


def _named_hierarchy(options: str) -> str:
    words = options.split(",")
    controllers = [word for word in words if "=" not in word and word not in ("xattr", "noprefix", "clone_children")]
    return "none" if any(word.startswith("name=") for word in words) and not any(controllers) else ""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OF_TMPFS = _words(
    "size nr_blocks nr_inodes mode uid gid huge mpol inode32 inode64 noswap noacl acl usrquota grpquota "
    "usrquota_block_hardlimit usrquota_inode_hardlimit grpquota_block_hardlimit grpquota_inode_hardlimit"
)
_OF_OVERLAY = _words(
    "lowerdir upperdir workdir lowerdir+ datadir+ redirect_dir index uuid nfs_export xino metacopy volatile userxattr "
    "verity default_permissions override_creds nooverride_creds"
)
#: Beside controllers.  Not release_agent, a program that the kernel would run for us.
_OF_CGROUP = _words("xattr noprefix clone_children cpuset_v2_mode none name")
_OF_CGROUP2 = _words(
    "nsdelegate favordynmods memory_localevents memory_recursiveprot memory_hugetlb_accounting pids_localevents"
)
#: Of any type: labels, and what says nothing.
ANY_OPTIONS = _words("context fscontext defcontext rootcontext seclabel ro rw sync mand dirsync lazytime")

ALL: tuple[Filesystem, ...] = (
    Filesystem(PROC, "proc", is_shown_everywhere=True, by_puppet=True, options=_words("hidepid gid subset pidns")),
    Filesystem(SYSFS, "sysfs", is_shown_everywhere=True),
    Filesystem(3, "devtmpfs", is_shown_everywhere=True, is_of_machine=True, options=_OF_TMPFS),
    Filesystem(4, "binfmt_misc", is_shown_everywhere=True, dump=binfmt_misc.dump, restore=binfmt_misc.restore),
    Filesystem(TMPFS, "tmpfs", dump=tmpfs.dump, prepare=tmpfs.prepare, restore=tmpfs.restore, options=_OF_TMPFS),
    Filesystem(
        DEVPTS, "devpts", extra=lambda options: "newinstance", options=_words("uid gid mode ptmxmode newinstance max")
    ),
    Filesystem(7, "pstore", is_shown_everywhere=True, is_host_s=True, options=_words("kmsg_bytes")),
    Filesystem(9, "securityfs", is_shown_everywhere=True, is_host_s=True),
    Filesystem(10, "fusectl", is_shown_everywhere=True, is_host_s=True),
    Filesystem(11, "debugfs", is_shown_everywhere=True, is_host_s=True, options=_words("uid gid mode")),
    Filesystem(12, "cgroup", is_shown_everywhere=True, extra=_named_hierarchy, options=_OF_CGROUP),
    Filesystem(14, "mqueue", is_shown_everywhere=True),
    Filesystem(OVERLAY, "overlay", options=_OF_OVERLAY),
    Filesystem(19, "tracefs", is_shown_everywhere=True, is_host_s=True, options=_words("uid gid mode")),
    Filesystem(23, "cgroup2", is_shown_everywhere=True, options=_OF_CGROUP2),
)
BY_NAME = {kind.name: kind for kind in ALL}
BY_CODE = {kind.code: kind for kind in ALL}
#: Known to images, but never made anew by us.
OTHER_CODES = {"fuse": 15, "autofs": 18}


def code_of(fstype: str) -> int:
    """The image's number of a file system type."""
    kind = BY_NAME.get(fstype)
    return kind.code if kind else OTHER_CODES.get(fstype, UNSUPPORTED)


def mount_flags(mount: Mount) -> int:
    """MS_* of the mount itself, propagation included."""
    flags = sum(flag for name, flag in _MOUNT_FLAGS.items() if name in mount.options)
    flags |= mounts.MS_SHARED if mount.shared else 0
    flags |= mounts.MS_SLAVE if mount.master else 0
    return flags | (mounts.MS_UNBINDABLE if mount.unbindable else 0)


def super_flags(mount: Mount) -> int:
    """MS_* of the file system."""
    words = mount.super_options.split(",")
    return sum(flag for name, flag in _SUPER_FLAGS.items() if name in words)


def super_options(mount: Mount, idmaps: IdMaps) -> str:
    """The file system's options that are no flags, and those that mountinfo does not show; ids as they are inside."""
    words = [word for word in mount.super_options.split(",") if word != "rw" and word not in _SUPER_FLAGS]
    words = [_inside(word, idmaps) for word in words]
    kind = BY_NAME.get(mount.fstype)
    if kind is not None and kind.extra is not None and (more := kind.extra(",".join(words))):
        words.append(more)
    return ",".join(words)


def _inside(word: str, idmaps: IdMaps) -> str:
    """An option with its id as the user namespace has it: the kernel shows ours."""
    key, _, value = word.partition("=")
    if key not in ("uid", "gid") or not value.isdigit():
        return word
    ids = idmaps.users if key == "uid" else idmaps.groups
    return f"{key}={ids.inside(int(value))}"


def super_flag_names(flags: int) -> list[str]:
    """The options by which fsconfig(2) takes the flags of a file system."""
    return [name for name, flag in _SUPER_FLAGS.items() if flags & flag]
