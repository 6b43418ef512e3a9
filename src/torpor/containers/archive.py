"""A checkpoint archive as Podman, CRI-O and containerd write it, read once and never unpacked.

    config.dump, spec.dump, network.status, ...    what the engine knows of the container
    checkpoint/*.img                               CRIU's images
    rootfs-diff.tar, deleted.files                 what changed in its root file system
    volumes/NAME.tar                               its volumes
    blobs/sha256/*                                 of an exported image: such an archive again, or its images alone

The archive may come from anybody: nothing in it is written anywhere, only small images are kept in memory, and of the
pages just the few bytes that hold command lines and environments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torpor.base.fds import only_files
from torpor.engine.sets.contents import MAX_STRINGS
from torpor.images import kinds, manifest
from torpor.images.added import SUFFIX
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.pagemap import Pagemap, load_pagemap
from torpor.images.pages import page_bytes_of
from torpor.images.store import load_one
from torpor.images.stores.base import COMPRESSED
from torpor.images.stores.memory import MemPagesReader, MemStore
from torpor.images.tarstream import DAMAGE, Content, Member, Readable, decompressed, iter_members, open_compressed

_DOCUMENTS = frozenset(
    {
        "config.dump", "spec.dump", "status.dump", "status", "network.status", "deleted.files", "stats-dump",
        "bind.mounts", "index.json", "pod.options",
    }
)  # fmt: skip
_IMAGES = "checkpoint/"
_BLOBS = "blobs/sha256/"
_VOLUMES = "volumes/"
_ROOTFS_DIFF = "rootfs-diff.tar"
_MAX_DOCUMENT = 16 << 20
_MAX_IMAGE = 64 << 20
_MAX_KEPT = 512 << 20
_MAX_LINES = 64 << 20
_MAX_CHANGES = 10_000
_MAX_VOLUMES = 10_000
_MAX_REMARKS = 20
_CHUNK = 1 << 20
#: How long a compressed image is going to be.
_UNKNOWN = 1 << 62
#: The kinds of images that tell what a checkpoint holds.
_KEPT = frozenset(
    {
        "CORE", "FDINFO", "FILES", "FS", "IDS", "INVENTORY", "MM", "PAGEMAP", "PSTREE", "REMAP_FPATH",
        "SHMEM_PAGEMAP",
    }
)  # fmt: skip


class ArchiveStore(MemStore):
    """The images of an archive; of page images their sizes, and what was kept of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, _KeptPages] = {}
        #: Of all images, those that were not kept as well.
        self.images_bytes = 0
        #: Of small images that were kept, and of command lines and environments.
        self.n_kept = self.n_strings = 0
        self._new_maps: list[int] = []
        self._maps: dict[str, list[int]] = {}

    @property
    def size_bytes(self) -> int:
        return self.images_bytes

    def names(self) -> list[str]:
        return sorted({*super().names(), *self.pages})

    def exists(self, name: str) -> bool:
        return super().exists(name) or name in self.pages

    def keep(self, name: str, data: bytes) -> None:
        """Keep a small image.  ImageError where there are too many."""
        self.n_kept += len(data) - len(self.images.get(name, b""))
        if self.n_kept > _MAX_KEPT:
            raise ImageError(f"more than {_MAX_KEPT} bytes of small images are not believed")
        self.images[name] = bytearray(data)
        found = kinds.by_file_name(name)
        if found is not None and found[0].name == kinds.PAGEMAP.name and isinstance(found[1], int):
            self._new_maps.append(found[1])

    def maps_of(self, pages_name: str) -> list[int]:
        """Whose page maps so far speak of that page image; each is read once, however many page images come."""
        for ident in dict.fromkeys(self._new_maps):
            with suppress(ImageError):
                self._maps.setdefault(self.map_of(ident).pages_name, []).append(ident)
        self._new_maps.clear()
        return list(dict.fromkeys(self._maps.get(pages_name, [])))

    def map_of(self, ident: int) -> Pagemap:
        """The page map of a process.  ImageError."""
        return load_pagemap(self, ident, page_bytes=page_bytes_of(self), check_pages=False)

    def pages_reader(self, name: str) -> MemPagesReader:
        return self.pages[name] if name in self.pages else super().pages_reader(name)


class _KeptPages(MemPagesReader):
    """A page image of which only some ranges are there."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(bytearray(), name)
        self.size = size
        self.ranges: list[tuple[int, bytes]] = []

    def read_at(self, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        for begin, data in self.ranges:
            if begin <= offset and offset + len(view) <= begin + len(data):
                view[:] = data[offset - begin : offset - begin + len(view)]
                return
        raise ImageMissing(f"{self._name}: these pages were not kept")


@dataclass(slots=True)
class Archive:
    """What was read.  Sizes are in bytes and unpacked, except for ``file_bytes``.

    ``documents`` by their names; ``volumes`` names and sizes; ``changes`` the paths in the changed root file system, at
    most so many; ``remarks`` what is odd about the archive; ``written`` when the images were, in seconds.
    """

    path: str
    compression: str = "none"
    file_bytes: int = 0
    documents: dict[str, bytes] = field(default_factory=dict)
    store: ArchiveStore = field(default_factory=ArchiveStore)
    pages_bytes: int = 0
    volumes: list[tuple[str, int]] = field(default_factory=list)
    rootfs_diff_bytes: int | None = None
    changes: list[str] = field(default_factory=list)
    n_changes: int = 0
    written: int = 0
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store.path = self.path

    def remark(self, text: str) -> None:
        """Something odd, said once and not too often."""
        if text not in self.remarks and len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(text)


def read_directory(path: Path) -> tuple[Archive, Path]:
    """The documents in a directory, and where in it the images are: in itself, in ``checkpoint``, or in the only one.

    That is an archive somebody unpacked, a ``docker checkpoint``, or what runc wrote.  ImageMissing without images.
    """
    archive = Archive(str(path))
    with suppress(OSError):
        for name in _DOCUMENTS & {entry.name for entry in path.iterdir() if entry.is_file() and not entry.is_symlink()}:
            with open(path / name, "rb", opener=only_files) as stream:
                archive.documents[name] = stream.read(_MAX_DOCUMENT)
    images = _images_in(path)
    archive.written = int((images / kinds.INVENTORY.file_name()).stat().st_mtime)
    if "stats-dump" not in archive.documents:
        with suppress(OSError), open(images / "stats-dump", "rb", opener=only_files) as stream:
            archive.documents["stats-dump"] = stream.read(_MAX_DOCUMENT)
    return archive, images


def _images_in(path: Path) -> Path:
    try:
        candidates = [path, path / "checkpoint", *sorted(entry for entry in path.iterdir() if entry.is_dir())]
    except OSError as error:
        raise ImageMissing(f"{path}: {error.strerror}") from None
    found = [place for place in dict.fromkeys(candidates) if (place / kinds.INVENTORY.file_name()).is_file()]
    if not found:
        raise ImageMissing(f"{path}: no checkpoint (there is no {kinds.INVENTORY.file_name()})")
    if len(found) > 1 and found[0] not in candidates[:2]:
        names = ", ".join(str(place) for place in found)
        raise ImageError(f"{path}: several checkpoints: {names}", hint="name one of them")
    return found[0]


def read_archive(path: Path) -> Archive:
    """Read all of it.  ImageMissing, ImageError for what is no checkpoint archive, or a damaged one."""
    archive = Archive(str(path))
    with _named(path), open_compressed(path) as (stream, archive.compression):
        archive.file_bytes = path.stat().st_size
        for member, content in iter_members(stream):
            _take(archive, member, content)
        if "config.dump" not in archive.documents and not archive.store.exists(kinds.INVENTORY.file_name()):
            raise ImageError("not a checkpoint of a container: it has neither config.dump nor images")
    return archive


def is_whole(path: Path) -> bool:
    """Whether there is an archive and nothing of it is missing, as far as can be told."""
    try:
        with open_compressed(path) as (stream, _):
            for _ in iter_members(stream):
                pass
    except ImageError:
        return False
    return True


def peek(path: Path) -> dict[str, bytes]:
    """The engine's documents that stand before the images; quick, however large the archive is."""
    archive = Archive(str(path))
    with _named(path), open_compressed(path) as (stream, _):
        for member, content in iter_members(stream):
            place = member.place or ""
            if place.startswith(_IMAGES) and "config.dump" in archive.documents:
                break
            if place in _DOCUMENTS:
                _take(archive, member, content)
    return archive.documents


class _named:
    """Errors of the readers below name the archive."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImageError) and str(self._path) not in str(error):
            raise type(error)(f"{self._path}: {error}", hint=error.hint) from None


def _take(archive: Archive, member: Member, content: Content) -> None:
    place = member.place
    if place is None:
        archive.remark(f"{member.name!r} leads out of the archive; it was passed over")
        return
    if member.kind not in ("file", "directory"):
        archive.remark(f"{place!r} is a {member.kind}; it was passed over")
        return
    if member.kind == "directory":
        return
    if place in _DOCUMENTS:
        if place in archive.documents:
            archive.remark(f"{place!r} is there several times; the last one counts")
        archive.documents[place] = _whole(place, content, _MAX_DOCUMENT)
    elif place.startswith(_IMAGES):
        _take_image(archive, place.removeprefix(_IMAGES), member, content)
    elif place == _ROOTFS_DIFF:
        archive.rootfs_diff_bytes = member.size
        _take_changes(archive, content)
    elif place.startswith(_BLOBS):
        _take_blob(archive, content)
    elif place.startswith(_VOLUMES) and place.endswith(".tar"):
        if len(archive.volumes) >= _MAX_VOLUMES:
            archive.remark(f"there are more than {_MAX_VOLUMES} volumes")
        else:
            archive.volumes.append((place.removeprefix(_VOLUMES).removesuffix(".tar"), member.size))


def _whole(name: str, content: Content, limit: int) -> bytes:
    if content.left > limit:
        raise ImageError(f"{name}: {content.left} bytes; at most {limit} are believed")
    pieces = []
    while content.left:
        pieces.append(content.read(content.left))
    return b"".join(pieces)


def _take_image(archive: Archive, name: str, member: Member, content: Content) -> None:
    archive.store.images_bytes += member.size
    if "/" in name:
        return
    if name == manifest.NAME:
        archive.documents[name] = _whole(name, content, _MAX_DOCUMENT)
        return
    plain = name.removesuffix(COMPRESSED)
    found = kinds.by_file_name(plain.removesuffix(SUFFIX))
    if found is None:
        return
    kind, _ = found
    if kind.name == kinds.PAGES.name:
        archive.pages_bytes += member.size
        if plain != name:
            archive.store.pages[plain] = _keep_compressed(archive.store, plain, content)
        else:
            archive.store.pages[name] = _keep_pages(archive.store, name, content, content.left)
    elif kind.name in _KEPT:
        if kind.name == "INVENTORY":
            archive.written = member.mtime
        archive.store.keep(name, _whole(name, content, _MAX_IMAGE))


class _Unpacked:
    """What a compressed member holds, read as Content is."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.n_read = 0

    def read(self, n_bytes: int, /) -> bytes:
        try:
            data = self._stream.read(n_bytes)
        except DAMAGE as error:
            raise ImageError(f"a compressed image is damaged, or cut off: {error}") from None
        self.n_read += len(data)
        return data

    def skip(self, n_bytes: int) -> None:
        until = self.n_read + n_bytes
        while self.n_read < until and self.read(min(_CHUNK, until - self.n_read)):
            pass


def _keep_compressed(store: ArchiveStore, name: str, content: Content) -> _KeptPages:
    with decompressed(content) as (stream, _):
        unpacked = _Unpacked(stream)
        kept = _keep_pages(store, name, unpacked, _UNKNOWN)
        unpacked.skip(_UNKNOWN)
        kept.size = unpacked.n_read
    return kept


def _keep_pages(store: ArchiveStore, name: str, content: Content | _Unpacked, size: int) -> _KeptPages:
    kept = _KeptPages(name, size)
    at = 0
    for begin, end in sorted(set(_iter_wanted(store, name))):
        if begin < at or end > kept.size or store.n_strings + end - begin > _MAX_LINES:
            continue
        store.n_strings += end - begin
        content.skip(begin - at)
        data = b""
        while len(data) < end - begin:
            piece = content.read(end - begin - len(data))
            if not piece:
                raise ImageError(f"{name}: ends before byte {end}, which a page map tells of")
            data += piece
        kept.ranges.append((begin, data))
        at = end
    return kept


def _iter_wanted(store: ArchiveStore, pages_name: str) -> Iterator[tuple[int, int]]:
    """Where in that page image the command lines lie, as far as the images before it tell."""
    for ident in store.maps_of(pages_name):
        with suppress(ImageError):
            pagemap = store.map_of(ident)
            if pagemap.n_present and pagemap.pages_name == pages_name:
                mm = load_one(store, kinds.MM, ident)
                for start, end in ((mm.mm_arg_start, mm.mm_arg_end), (mm.mm_env_start, mm.mm_env_end)):
                    yield from pagemap.places(start, min(end, start + MAX_STRINGS))


def _take_blob(archive: Archive, content: Content) -> None:
    """A part of an image: a checkpoint's archive or its images alone; layers and texts are of no interest."""
    n_members = 0
    try:
        with decompressed(content) as (stream, _):
            for member, inner in iter_members(stream):
                n_members += 1
                place = member.place or ""
                if place in _DOCUMENTS or place.startswith(_IMAGES) or place == _ROOTFS_DIFF:
                    _take(archive, member, inner)
                elif "/" not in place and place.removesuffix(SUFFIX).endswith(".img") and member.kind == "file":
                    _take_image(archive, place, member, inner)
    except ImageError as error:
        if n_members:
            archive.remark(f"a blob of the image: {error}")


def _take_changes(archive: Archive, content: Content) -> None:
    """The names in the nested archive."""
    try:
        for member, _ in iter_members(content):
            archive.n_changes += 1
            if len(archive.changes) < _MAX_CHANGES:
                archive.changes.append(member.place if member.place is not None else f"(unsafe) {member.name}")
    except ImageError as error:
        archive.remark(f"{_ROOTFS_DIFF}: {error}")
