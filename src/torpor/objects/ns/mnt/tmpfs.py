"""tmpfs: its contents, as a compressed tar archive (``tar``).

Kernel view
    Its files are nowhere but in memory; they are read by way of mounts that have no others on them.
Image
    ``tmpfs-dev-%u.tar.gz.img``, named after the device number.  Where only directories below its root are mounted, only
    these are in it.
Restore
    Unpacked by a thread whose root is the new file system, so that no name or link in the archive leads elsewhere.
    Socket files are made as well; those that a socket of the tree is bound to are replaced when it is.
Limits
    Those of ``tar``.  An archive that is damaged is refused, and what it holds of set-uid files and devices needs
    leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torpor.base.typed import BinaryIO, cast
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import isolated, unshare
from torpor.kernel.uapi.sched import CLONE_FS


def _name(device: int) -> str:
    return f"tmpfs-dev-{device}.tar.gz.img"


def prepare() -> None:
    """Import what ``dump`` needs."""
    import gzip  # noqa: F401

    from torpor.objects.ns.mnt import tar  # noqa: F401


def dump(store: ImageStore, places: Sequence[tuple[int, str]], device: int, idmaps: IdMaps) -> None:
    """Everything below descriptors of mounts without others on them, which show that part of the file system."""
    import gzip

    from torpor.objects.ns.mnt import tar

    with store.open_write(_name(device)) as stream, gzip.GzipFile("", "wb", 1, stream, 0) as packed:
        writer = tar.Writer(cast(BinaryIO, packed), idmaps)
        for fd, root in _apart(places):
            writer.add(fd, "." + root)
        writer.close()


def _apart(places: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Those that do not lie in others."""
    shown: list[str] = []
    for fd, root in sorted(places, key=lambda place: place[1]):
        below = f"{root.rstrip('/')}/"
        if not any(below.startswith(above) for above in shown):
            shown.append(below)
            yield fd, root


def get_ready(store: ImageStore, devices: Iterable[int]) -> None:
    """Import what reads contents, if there are any: not from the root of another mount namespace.

    Which that is in a chroot, even where the namespace is ours.
    """
    if any(store.exists(_name(device)) for device in devices):
        import gzip  # noqa: F401
        import tarfile  # noqa: F401

        from torpor.objects.ns.mnt import tar, tar_source  # noqa: F401


def is_empty(store: ImageStore, device: int) -> bool:
    """Whether there is nothing in it but its root."""
    if not store.exists(_name(device)):
        return True
    from torpor.objects.ns.mnt import tar_source

    with store.open_read(_name(device)) as stream:
        try:
            with tar_source.opened(stream) as archive:
                return all(member.name in (".", "") for member in archive)
        except (ImageError, OSError):
            return False


def restore(
    store: ImageStore,
    directory: int,
    device: int,
    idmaps: IdMaps,
    may_be_special: bool,
    new_labels: Mapping[str, str] | None = None,
) -> None:
    """Unpack into the descriptor *directory*, the root of an empty file system.

    *new_labels*: what security labels become; None: files keep those that they are made with.
    """
    if not store.exists(_name(device)):
        return
    with store.open_read(_name(device)) as stream:
        isolated(lambda: _unpack(stream, directory, idmaps, may_be_special, new_labels))


def _unpack(
    stream: BinaryIO, directory: int, idmaps: IdMaps, may_be_special: bool, new_labels: Mapping[str, str] | None
) -> None:
    import os

    from torpor.objects.ns.mnt import tar, tar_source

    # The calling thread is one of its own, and what follows concerns it alone.
    unshare(CLONE_FS)
    os.fchdir(directory)
    os.chroot(".")
    with tar_source.opened(stream) as archive:
        tar.Reader(archive, idmaps, may_be_special=may_be_special, new_labels=new_labels).run()
