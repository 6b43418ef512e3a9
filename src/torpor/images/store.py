"""Stores: where the images of one checkpoint lie, and how images go in and come out.

A directory is one store (stores/directory.py), memory another (stores/memory.py); archives, compression and other hosts
come as further ones.  Whatever a store is, names are plain file names and errors are ImageError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from torpor.base.typed import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, overload
from torpor.images import kinds
from torpor.images.added import SUFFIX, Moved, load_added, may_hold
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.format import Entry, encode_image, read_entries, read_messages
from torpor.images.kinds import EntryT_co, ImageKind

if TYPE_CHECKING:
    from torpor.images import messages as m
    from torpor.images.manifest import Manifest


class PagesReader(Protocol):
    """Random access to one raw image.  Safe for several threads at once."""

    @property
    def size(self) -> int:
        """The image's length in bytes."""

    def read_at(self, offset: int, into: memoryview) -> None:
        """Fill *into* from byte *offset*; ImageError where the image ends before."""

    def close(self) -> None: ...


class PagesWriter(Protocol):
    """One raw image being written."""

    @property
    def supports_write_at(self) -> bool:
        """Whether ``reserve`` and ``write_at`` work here; ``append`` always does."""

    def append(self, buffers: Sequence[memoryview]) -> None:
        """Write the buffers at the end, in order."""

    def reserve(self, n_bytes: int) -> int:
        """Make room for *n_bytes* at the end; its offset.  Thread-safe."""

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Write the buffers from byte *offset* on, into room reserved before.  Thread-safe."""

    def close(self) -> None:
        """End the image; errors held back until now are raised."""


class ImageStore(Protocol):
    """The images of one checkpoint.  A context manager that closes itself."""

    #: What messages call it.
    path: str

    @property
    def manifest(self) -> Manifest | None:
        """What made the set, when and where; None where nothing tells."""

    @property
    def size_bytes(self) -> int:
        """What the images take where they lie, apart from holes."""

    def names(self) -> list[str]:
        """The names of all images, sorted."""

    def exists(self, name: str) -> bool: ...

    def size_of(self, name: str) -> int:
        """The image's length in bytes, as who reads it finds it; ImageMissing."""

    def fault_of(self, name: str) -> str:
        """What the manifest says is wrong with the image; "" for nothing, and where there is no manifest."""

    def open_read(self, name: str) -> BinaryIO:
        """The image, open for reading from its beginning; ImageMissing where there is none of that name."""

    def open_write(self, name: str) -> BinaryIO:
        """A new image, which replaces one of that name."""

    def put(self, name: str, data: bytes) -> None:
        """The same in one go."""

    def pages_reader(self, name: str) -> PagesReader: ...

    def pages_writer(self, name: str, n_bytes: int | None = None) -> PagesWriter:
        """A new raw image.  *n_bytes*: how long it is going to be, if that is known.

        A stream says so before it sends the image; without it, the image waits somewhere until it is whole.
        """

    def delete(self, name: str) -> None:
        """Remove an image; ImageMissing."""

    def parent(self) -> ImageStore | None:
        """The store of the pre-dump before this one, None for the first.  Opened once; it stays ours to close."""

    def commit(self, made: Manifest | None = None) -> None:
        """All is written: what lies here is a set from now on.

        The inventory, by which a set is told from the rest of one, is the last to be there.  When this returns, it is
        as safe as the store can make it: a directory's files are on the disk, a stream's bytes have been taken.
        *made* is to be noted of the set by stores that outlast us, which know best what its files are.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_name(name: str) -> str:
    """*name*, if it is a plain file name; ImageError otherwise.  Names may come out of images and are not trusted."""
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode(errors="replace")) > 255:
        raise ImageError(f"{name!r} is not the name of an image")
    return name


def resolve(kind: str | ImageKind[m.Message]) -> ImageKind[m.Message]:
    """A kind by its name, or itself."""
    return kinds.by_name(kind) if isinstance(kind, str) else kind


def identity_of(store: ImageStore) -> bytes:
    """What tells a set of images from one that is put into its place."""
    found = b""
    for name in (kinds.INVENTORY.file_name(), kinds.PSTREE.file_name()):
        with store.open_read(name) as stream:
            found += stream.read()
    return found


@overload
def iter_entries(
    store: ImageStore, kind: ImageKind[EntryT_co], ident: int | str | None = None
) -> Iterator[Entry[EntryT_co]]: ...
@overload
def iter_entries(store: ImageStore, kind: str, ident: int | str | None = None) -> Iterator[Entry[m.Message]]: ...
def iter_entries(
    store: ImageStore, kind: str | ImageKind[m.Message], ident: int | str | None = None
) -> Iterator[Entry[m.Message]]:
    """The entries of one image with their payloads.  Raises ImageMissing, and ImageError for a damaged image."""
    found = resolve(kind)
    name = found.file_name(ident)
    with store.open_read(name) as stream:
        added = load_added(store, found, name)
        if added is None:
            yield from read_entries(stream, found, name)
            return
        for entry in read_entries(stream, found, name):
            added.merge(entry.message)
            yield entry
        added.finish()


class Sorted:
    """The entries of one image with their payloads, by a number that each bears.

    The image is read once, when it is first asked for; one that is missing holds nothing.
    """

    def __init__(self, store: ImageStore, kind: str | ImageKind[m.Message], number: str) -> None:
        self._store, self._kind, self._number = store, kind, number
        self._found: dict[int, list[Entry[m.Message]]] | None = None

    def take(self, number: int) -> list[Entry[m.Message]]:
        """Those that bear *number*; they are not kept."""
        if self._found is None:
            self._found = {}
            try:
                for entry in iter_entries(self._store, self._kind):
                    self._found.setdefault(getattr(entry.message, self._number), []).append(entry)
            except ImageMissing:
                pass
        return self._found.pop(number, [])


@overload
def load_all(store: ImageStore, kind: ImageKind[EntryT_co], ident: int | str | None = None) -> list[EntryT_co]: ...
@overload
def load_all(store: ImageStore, kind: str, ident: int | str | None = None) -> list[m.Message]: ...
def load_all(store: ImageStore, kind: str | ImageKind[m.Message], ident: int | str | None = None) -> list[Any]:
    """The messages of one image, without payloads."""
    found = resolve(kind)
    name = found.file_name(ident)
    with store.open_read(name) as stream:
        messages = read_messages(stream, found, name)
    added = load_added(store, found, name)
    if added is not None:
        for message in messages:
            added.merge(message)
        added.finish()
    return messages


@overload
def load_one(store: ImageStore, kind: ImageKind[EntryT_co], ident: int | str | None = None) -> EntryT_co: ...
@overload
def load_one(store: ImageStore, kind: str, ident: int | str | None = None) -> m.Message: ...
def load_one(store: ImageStore, kind: str | ImageKind[m.Message], ident: int | str | None = None) -> m.Message:
    """The only message of one image; ImageError where it holds none or several."""
    found = resolve(kind)
    messages = load_all(store, found, ident)
    if len(messages) != 1:
        raise ImageError(f"{found.file_name(ident)}: {len(messages)} entries, where exactly one is expected")
    return messages[0]


def store_all(
    store: ImageStore,
    kind: str | ImageKind[m.Message],
    entries: Iterable[Entry[m.Message] | m.Message],
    ident: int | str | None = None,
) -> None:
    """Write one image, in one write, and beside it what torpor adds.  ImageError where an entry is incomplete; nothing
    is written then.
    """
    found = resolve(kind)
    name = found.file_name(ident)
    moved = Moved(found) if may_hold(found) else None
    data = encode_image(found, entries, moved)
    store.put(name, data)
    if moved is not None:
        beside = moved.encode(data) or (moved.nothing(data) if store.exists(name + SUFFIX) else b"")
        if beside:
            store.put(name + SUFFIX, beside)


def store_one(
    store: ImageStore,
    kind: str | ImageKind[m.Message],
    entry: Entry[m.Message] | m.Message,
    ident: int | str | None = None,
) -> None:
    """Write an image of one entry."""
    store_all(store, kind, (entry,), ident)


class ImageWriter:
    """Collects entries of one image and writes them together when closed."""

    def __init__(self, store: ImageStore, kind: str | ImageKind[m.Message], ident: int | str | None = None) -> None:
        self._store = store
        self._kind = resolve(kind)
        self._ident = ident
        self._entries: list[Entry[m.Message] | m.Message] = []

    def add(self, entry: Entry[m.Message] | m.Message) -> None:
        self._entries.append(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        store_all(self._store, self._kind, self._entries, self._ident)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
