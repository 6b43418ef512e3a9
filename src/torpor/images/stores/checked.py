"""A set of images as it is read: one whole set, each image as its manifest says that it was written.

Names that the manifest does not know are not there: they are of another set, or somebody else's.  Small images are
looked at as a whole when they are opened, pages block by block as they are read, so what nobody reads costs nothing.
A set without a manifest (CRIU's own) is what its directory holds.
"""

from __future__ import annotations

from torpor.base.typed import BinaryIO, NoReturn
from torpor.images import kinds, manifest
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.manifest import BLOCK_BYTES, Content, Manifest
from torpor.images.store import ImageStore, PagesReader, check_name, load_one
from torpor.images.stores.base import BaseStore

_DAMAGED = "torpor verify tells what else is damaged; --no-verify restores it all the same"


class CheckedPagesReader:
    """PagesReader that looks at each block once, when something of it is read."""

    def __init__(self, reader: PagesReader, content: Content, where: str, is_seen: bytearray) -> None:
        self._reader = reader
        self._content = content
        self._where = where
        #: For each block whether it has been compared with its sum; shared by all readers of the image.
        self._is_seen = is_seen
        self.size = reader.size

    def read_at(self, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        self._reader.read_at(offset, view)
        end = offset + len(view)
        for index in range(offset // BLOCK_BYTES, min(-(-end // BLOCK_BYTES), len(self._is_seen))):
            if self._is_seen[index]:
                continue
            first = index * BLOCK_BYTES
            last = min(first + BLOCK_BYTES, self._content.n_bytes)
            if first >= offset and last <= end:
                self._look(index, view[first - offset : last - offset])
            else:
                block = memoryview(bytearray(last - first))
                self._reader.read_at(first, block)
                self._look(index, block)

    def _look(self, index: int, block: memoryview) -> None:
        if not manifest.is_right(self._content, index, block):
            _refuse(self._where, f"not what was written, between bytes {index * BLOCK_BYTES} and +{len(block)}")
        self._is_seen[index] = 1

    def close(self) -> None:
        self._reader.close()


class CheckedStore(BaseStore):
    """ImageStore, for reading, of one set.  Raises ImageError where the images are of several sets.

    *store* becomes ours, unless it is *borrowed*.  Without *verify* the sums are not looked at.
    """

    def __init__(
        self, store: ImageStore, found: Manifest | None, *, verify: bool = True, borrowed: bool = False
    ) -> None:
        self._store = store
        self._verify = verify
        self._borrowed = borrowed
        self._seen: set[str] = set()
        self._seen_blocks: dict[str, bytearray] = {}
        self.path = store.path
        self._parent: CheckedStore | None = None
        self._manifest = self._own(found)

    @property
    def manifest(self) -> Manifest | None:
        return self._manifest

    @property
    def size_bytes(self) -> int:
        return self._store.size_bytes

    def _own(self, found: Manifest | None) -> Manifest | None:
        """The manifest, if it is this set's; None where CRIU has written over a set of ours.

        Ours is an id of 20 digits; CRIU's, if there is one, is a UUID.
        """
        if found is None or not self._store.exists(kinds.INVENTORY.file_name()):
            return found
        ident = load_one(self._store, kinds.INVENTORY).dump_criu_run_id
        if ident == found.ident:
            return found
        if len(ident) == len(found.ident):
            raise ImageError(
                f"{self.path}: images of two dumps ({found.ident} and {ident}) lie here together",
                hint="they were copied while they were written, or over each other: copy them again",
            )
        return None

    def _content(self, name: str) -> Content | None:
        """What the manifest says of *name*; ImageMissing where it does not know it."""
        if self.manifest is None:
            return None
        content = self.manifest.files.get(check_name(name))
        if content is None and not self._was_brought(name):
            raise ImageMissing(f"{name}: cannot open: no such image in this set")
        if content is None and not self._store.exists(name):
            raise ImageMissing(
                f"{name} is not here: the pages of this dump went to a page server",
                hint="bring page*.img from its images directory into this one",
            )
        return content

    def names(self) -> list[str]:
        found = self._store.names()
        return [name for name in found if self._knows(name)]

    def exists(self, name: str) -> bool:
        return self._knows(check_name(name)) and self._store.exists(name)

    def _knows(self, name: str) -> bool:
        return self.manifest is None or name in self.manifest.files or self._was_brought(name)

    def _was_brought(self, name: str) -> bool:
        """Whether it is of pages that came by a page server, of which the dump knew nothing more."""
        return self.manifest is not None and self.manifest.pages == manifest.ELSEWHERE and kinds.holds_pages(name)

    def open_read(self, name: str) -> BinaryIO:
        content = self._content(name)
        stream = self._store.open_read(name)
        if content is None or not self._verify or name in self._seen:
            return stream
        try:
            fault = self._fault(name, content, stream)
        except BaseException:
            stream.close()
            raise
        if fault:
            stream.close()
            _refuse(f"{self.path}/{name}", fault)
        self._seen.add(name)
        return stream

    def size_of(self, name: str) -> int:
        self._content(name)
        return self._store.size_of(name)

    def fault_of(self, name: str) -> str:
        """StoreError where it cannot be read."""
        if self.manifest is None:
            return ""
        try:
            stream = self._store.open_read(name)
        except ImageMissing:
            return "missing"
        with stream:
            return self._fault(name, self.manifest.files[name], stream)

    def _fault(self, name: str, content: Content, stream: BinaryIO) -> str:
        n_bytes = self._store.size_of(name)
        if n_bytes != content.n_bytes:
            return f"{n_bytes} bytes, where {content.n_bytes} were written"
        try:
            if content.sums is None or manifest.sums_of(stream, n_bytes) == content.sums:
                stream.seek(0)
                return ""
        except OSError as error:
            raise StoreError(f"{self.path}/{name}: cannot read: {error.strerror}") from error
        return "not what was written"

    def pages_reader(self, name: str) -> PagesReader:
        content = self._content(name)
        reader = self._store.pages_reader(name)
        if content is None or not self._verify:
            return reader
        where = f"{self.path}/{name}"
        if reader.size != content.n_bytes:
            reader.close()
            _refuse(where, f"{reader.size} bytes, where {content.n_bytes} were written")
        if content.sums is None:
            return reader
        is_seen = self._seen_blocks.setdefault(name, bytearray(manifest.n_blocks(content.n_bytes)))
        return CheckedPagesReader(reader, content, where, is_seen)

    def parent(self) -> ImageStore | None:
        if self._parent is None:
            found = self._store.parent()
            if found is not None:
                self._parent = CheckedStore(found, manifest.load(found), verify=self._verify, borrowed=True)
        return self._parent

    def close(self) -> None:
        if self._parent is not None:
            self._parent.close()
        if not self._borrowed:
            self._store.close()


def _refuse(where: str, what: str) -> NoReturn:
    raise ImageError(f"{where}: damaged: {what}", hint=_DAMAGED)
