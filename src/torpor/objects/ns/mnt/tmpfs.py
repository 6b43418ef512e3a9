"""tmpfs: its contents, as a compressed tar archive.

Image
    ``tmpfs-dev-%u.tar.gz.img``, named after the device number.  Sockets are left out: binding makes them again.
Restore
    Unpacked by a thread whose root is the new file system, so that no name or link in the archive leads elsewhere.
Limits
    Extended attributes are not carried.
"""

from __future__ import annotations

import os

from torpor.base.typed import TYPE_CHECKING, BinaryIO
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import CLONE_FS, isolated, unshare

if TYPE_CHECKING:
    import tarfile


def _name(device: int) -> str:
    return f"tmpfs-dev-{device}.tar.gz.img"


def dump(store: ImageStore, directory: int, device: int, idmaps: IdMaps) -> None:
    """Everything below the descriptor *directory*, which is a mount without others on it."""
    import tarfile

    with store.open_write(_name(device)) as stream:
        with tarfile.open(
            fileobj=stream, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT, dereference=False
        ) as archive:
            _add(archive, f"/proc/self/fd/{directory}", ".", idmaps)


def _add(archive: tarfile.TarFile, path: str, name: str, idmaps: IdMaps) -> None:
    # The type stubs do not know that it gives None, for a socket.
    found: object = archive.gettarinfo(path + "/." if name == "." else path, name)
    if found is None:
        return
    assert isinstance(found, type(archive).tarinfo)
    member = found
    member.uname = member.gname = ""
    member.uid, member.gid = idmaps.inside(member.uid, member.gid)
    if member.isreg():
        with open(path, "rb") as stream:
            archive.addfile(member, stream)
        return
    archive.addfile(member)
    if member.isdir():
        for child in sorted(os.listdir(path)):
            _add(archive, f"{path}/{child}", f"{name}/{child}", idmaps)


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
            archive.extraction_filter = lambda member, path: _outside(member, idmaps)
            archive.extractall(".", numeric_owner=True)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ImageError(f"the contents of a tmpfs are damaged: {error}") from error


def _outside(member: tarfile.TarInfo, idmaps: IdMaps) -> tarfile.TarInfo:
    """*member* with an owner in ids of ours."""
    member.uid, member.gid = idmaps.outside(member.uid, member.gid)
    return member
