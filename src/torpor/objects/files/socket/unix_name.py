"""Names of unix sockets: in a file system, abstract, or none.

Kernel view
    The table of sock_diag(7) has the name as it was bound, with its final NUL where it is a path.  SIOCUNIXFILE opens
    the socket's file (O_PATH): its path now, which may be another one (renamed, moved, bound through a link or below
    another root), owner, mode, times, extended attributes.
Image
    ``name``, ``name_dir`` for a relative path, ``file_perms``, ``deleted``.  ``torpor_file``: the path now, where the
    others do not lead there; other names of the file; what CRIU's fields do not say of it.
Restore
    ``unix_bind``.
Limits
    Of a file with several names those are found that are near (``linked``).  A name on a mount that the tree does not
    have is restored as a deleted one: nobody in the tree could reach it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping

from torpor.base import log
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text
from torpor.kernel import lsm
from torpor.kernel.idmap import IdMaps
from torpor.kernel.uapi.un import SIOCUNIXFILE
from torpor.objects.files import linked, paths
from torpor.objects.files.model import OpenFile, mount_of
from torpor.objects.session import DumpContext

_MAX_NAME = 108
_MAX_LINKS = 64


# -- dump -----------------------------------------------------------------------------------------------------


def check(file: OpenFile, name: bytes, context: DumpContext) -> None:
    """RefusedError where we may not ask for the file of a socket's name; for all of a tree by the first."""
    if not name or name.startswith(b"\0") or not context.once(("unix", "names")):
        return
    try:
        os.close(fcntl.ioctl(file.fd, SIOCUNIXFILE))
    except PermissionError:
        raise file.refuse(
            f"the file of its name {_text(name)} cannot be found without CAP_NET_ADMIN",
            hint="run as root, or with that capability",
        ) from None
    except OSError:
        return  # it may be another name's by then


def dump(file: OpenFile, sk: m.unix_sk_entry, name: bytes, context: DumpContext) -> None:
    """Fill in the name, and what its file is like."""
    sk.name = name
    if not name or name.startswith(b"\0"):
        return
    try:
        opened = OwnedFd(fcntl.ioctl(file.fd, SIOCUNIXFILE))
    except OSError as error:
        raise file.refuse(f"the file of its name {_text(name)} cannot be found: {error.strerror}") from error
    with opened:
        _dump_file(file, sk, opened.fileno(), context)


def _dump_file(file: OpenFile, sk: m.unix_sk_entry, opened: int, context: DumpContext) -> None:
    roots, pid = paths.roots_of(context), file.process.pid
    info, path = os.fstat(opened), os.readlink(f"/proc/self/fd/{opened}")
    at = OpenFile(file.process, -1, opened, path, info, [])
    is_outside = False
    if roots.has_own(pid):
        sk.mnt_id = mount_of(opened)
        is_outside = not roots.has_mount(pid, sk.mnt_id)
    sk.file_perms.mode = info.st_mode
    sk.file_perms.uid, sk.file_perms.gid = file.process.idmaps.inside(info.st_uid, info.st_gid)
    if path.endswith(paths.DELETED) and not paths.is_there(at, path, context):
        sk.deleted = True
        path = path.removesuffix(paths.DELETED)
    if is_outside:
        log.warn(f"{file.describe()}: the file of its name, {path}, is on a mount that is not of the tree's")
        sk.deleted = True
    elif info.st_nlink > (0 if sk.deleted else 1):
        path = _dump_links(at, sk, path, context)
    sk.torpor_file.atime_ns, sk.torpor_file.mtime_ns = info.st_atime_ns, info.st_mtime_ns
    for key in _list_xattrs(opened):
        sk.torpor_file.xattr.add(name=key, value=os.getxattr(f"/proc/self/fd/{opened}", key))
    _dump_path(sk, path)


def _dump_path(sk: m.unix_sk_entry, path: str) -> None:
    """The directory of a relative name, and where the file is now if that is not where the name leads."""
    text = os.fsdecode(sk.name.rstrip(b"\0"))
    directory = "/"
    if not text.startswith("/"):
        ending = os.path.normpath(text)
        is_ending = path.endswith("/" + ending)
        directory = path.removesuffix(ending) if is_ending else os.path.dirname(path)
        directory = directory.rstrip("/") or "/"
        paths.set_name(sk, "name_dir", directory)
    if os.path.normpath(os.path.join(directory, text)) != path:
        sk.torpor_file.path = os.fsencode(path)


def _dump_links(at: OpenFile, sk: m.unix_sk_entry, path: str, context: DumpContext) -> str:
    """Names that the file has beside *path*; the first of them where that one is deleted."""
    root = paths.roots_of(context).of_file(at)
    names = [name for name in linked.find_names(at, path, root, _MAX_LINKS) if name != path]
    if sk.deleted and names:
        sk.deleted = False
        path = names.pop(0)
    if len(names) < at.stat.st_nlink - 1:
        log.warn(f"{at.describe()}: not all of the {at.stat.st_nlink} names of {path} are found")
    sk.torpor_file.link.extend(map(os.fsencode, names))
    return path


def _list_xattrs(opened: int) -> list[str]:
    try:
        return os.listxattr(f"/proc/self/fd/{opened}")
    except OSError:
        return []  # the file system has none


# -- restore --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """A socket's name as the image has it.  ``text`` is empty for a socket without one."""

    text: bytes
    directory: str
    is_deleted: bool
    mode: int
    uid: int
    gid: int
    #: The mount that its file is on; -1 where there is one mount namespace only.
    mount: int = -1
    #: Where the file is, if not where the name leads.
    moved_to: str = ""
    #: Other names of the file, and what more is said of it.
    links: tuple[str, ...] = ()
    times_ns: tuple[int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def is_path(self) -> bool:
        """Whether it is in a file system."""
        return bool(self.text) and not self.text.startswith(b"\0")

    @property
    def path(self) -> str:
        """From the root of its mount namespace."""
        return self.moved_to or os.path.join(self.directory, os.fsdecode(self.text))

    def __str__(self) -> str:
        return _text(self.text)


def name_of(sk: m.unix_sk_entry, idmaps: IdMaps, new_labels: Mapping[str, str] | None) -> Name:
    """The name in an image, its owner in ids of ours; ImageError for one that cannot be.

    *new_labels*: what security labels become; None: its file has the one that it is made with.
    """
    text = bytes(sk.name)
    if text and not text.startswith(b"\0"):
        text = text.rstrip(b"\0")
    if len(text) > _MAX_NAME or (text and not text.startswith(b"\0") and b"\0" in text):
        raise ImageError(f"files.img: {text!r} is no name of a unix socket")
    perms, file = sk.file_perms, sk.torpor_file
    mode = perms.mode if sk.HasField("file_perms") else 0
    moved_to, *links = (os.fsdecode(path) for path in (file.path, *file.link))
    if any(path and ("\0" in path or not path.startswith("/")) for path in (moved_to, *links)):
        raise ImageError(f"files.img: {text!r} is the name of no file")
    times = (file.atime_ns, file.mtime_ns) if file.HasField("mtime_ns") else None
    return Name(
        text, get_text(sk.name_dir) or "/", sk.deleted, mode, *idmaps.outside(perms.uid, perms.gid), sk.mnt_id,
        moved_to, tuple(links), times, tuple(_xattrs(file.xattr, new_labels)),
    )  # fmt: skip


def _xattrs(entries: Iterable[m.torpor_xattr], new_labels: Mapping[str, str] | None) -> Iterator[tuple[str, bytes]]:
    for each in entries:
        if each.name != lsm.XATTR:
            yield each.name, each.value
        elif new_labels is not None and lsm.active() == lsm.SELINUX:
            yield each.name, lsm.relabel_bytes(each.value, new_labels)


def _text(name: bytes) -> str:
    return os.fsdecode(b"@" + name[1:] if name.startswith(b"\0") else name.rstrip(b"\0"))
