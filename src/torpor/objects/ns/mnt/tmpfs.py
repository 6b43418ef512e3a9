"""tmpfs: its contents, as a compressed tar archive.

Image
    ``tmpfs-dev-%u.tar.gz.img``, named after the device number.  Sockets are left out: binding makes them again.
    Where only directories below its root are mounted, only these are in it.
Restore
    Unpacked by a thread whose root is the new file system, so that no name or link in the archive leads elsewhere.
    Extended attributes are in the archive as GNU tar has them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.typed import TYPE_CHECKING, BinaryIO
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import CLONE_FS, isolated, unshare

if TYPE_CHECKING:
    import tarfile


_XATTR = "SCHILY.xattr."


def _name(device: int) -> str:
    return f"tmpfs-dev-{device}.tar.gz.img"


def dump(store: ImageStore, places: Sequence[tuple[int, str]], device: int, idmaps: IdMaps) -> None:
    """Everything below descriptors of mounts without others on them, which show that part of the file system."""
    import tarfile

    with store.open_write(_name(device)) as stream:
        with tarfile.open(
            fileobj=stream, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT, dereference=False
        ) as archive:
            for fd, root in places:
                _add(
                    archive, f"/proc/self/fd/{fd}/" if _is_directory(fd) else f"/proc/self/fd/{fd}", "." + root, idmaps
                )


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _add(archive: tarfile.TarFile, path: str, name: str, idmaps: IdMaps) -> None:
    name = name.rstrip("/")
    # The type stubs do not know that it gives None, for a socket.
    found: object = archive.gettarinfo(path + "/." if path.endswith("/") else path, name)
    if found is None:
        return
    assert isinstance(found, type(archive).tarinfo)
    member = found
    member.uname = member.gname = ""
    member.uid, member.gid = idmaps.inside(member.uid, member.gid)
    member.pax_headers = {**member.pax_headers, **_attributes(path)}
    if member.isreg():
        with open(path, "rb") as stream:
            archive.addfile(member, stream)
        return
    archive.addfile(member)
    if member.isdir():
        for child in sorted(os.listdir(path)):
            _add(archive, f"{path.rstrip('/')}/{child}", f"{name}/{child}", idmaps)


def _attributes(path: str) -> dict[str, str]:
    """Extended attributes as GNU tar writes them."""
    found = {}
    follow = path.startswith("/proc/self/fd/") and "/" not in path[len("/proc/self/fd/") :].rstrip("/")
    for key in os.listxattr(path, follow_symlinks=follow):
        with suppress(OSError):  # taken away meanwhile, or not ours to see
            value = os.getxattr(path, key, follow_symlinks=follow)
            found[_XATTR + key] = value.decode("utf-8", "surrogateescape")
    return found


def restore(store: ImageStore, directory: int, device: int, idmaps: IdMaps) -> None:
    """Unpack into the descriptor *directory*, the root of an empty file system."""
    if not store.exists(_name(device)):
        return
    with store.open_read(_name(device)) as stream:
        isolated(lambda: _unpack(stream, directory, idmaps))


def _unpack(stream: BinaryIO, directory: int, idmaps: IdMaps) -> None:
    # All that is needed must be imported before the root changes.
    import gzip  # noqa: F401
    import tarfile
    import zlib

    # The calling thread is one of its own, and what follows concerns it alone.
    unshare(CLONE_FS)
    os.fchdir(directory)
    os.chroot(".")
    try:
        with tarfile.open(fileobj=stream, mode="r:gz", errorlevel=2) as archive:
            archive.extraction_filter = lambda member, path: member
            # Not by that filter, which Python has from 3.11.4 on only.
            members = (_outside(member, idmaps) for member in archive)
            archive.extractall(".", members, numeric_owner=True)
            _set_attributes(archive)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ImageError(f"the contents of a tmpfs are damaged: {error}") from error


def _outside(member: tarfile.TarInfo, idmaps: IdMaps) -> tarfile.TarInfo:
    """*member* with an owner in ids of ours."""
    member.uid, member.gid = idmaps.outside(member.uid, member.gid)
    return member


def _set_attributes(archive: tarfile.TarFile) -> None:
    for member in archive.getmembers():
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR):
                os.setxattr(
                    member.name, key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"), follow_symlinks=False
                )
