"""The container of an image: magics, then length-prefixed messages, some followed by a payload.

    inventory            u32 kind magic, entries
    every other image    u32 common (or service) magic, u32 kind magic, entries
    entry                u32 length, message, payload

Integers are little-endian.  What a payload is stands in ``payloads.py``.  Images are untrusted: whatever is in them,
reading gives entries or ImageError, and allocates no more than the file really holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from torpor.base.records import dataclass
from torpor.base.typed import TYPE_CHECKING, BinaryIO, Generic, cast
from torpor.images import kinds
from torpor.images._registry import decode_errors, message_class
from torpor.images.errors import ImageError
from torpor.images.kinds import EntryT_co, ImageKind

if TYPE_CHECKING:
    from torpor.images import messages as m
    from torpor.images.added import Moved

U32 = struct.Struct("<I")
MAX_ENTRY_BYTES = 64 << 20
MAX_ENTRIES = 1 << 24
MAX_PAYLOAD_BYTES = 1 << 30
_CHUNK = 1 << 20
_AT_ONCE = 16 << 20


@dataclass(frozen=True, slots=True)
class Entry(Generic[EntryT_co]):
    """One message of an image, with what follows it.

    ``payload`` has no padding; ``parts`` are the messages of an IPC queue, each with its own payload; ``offset`` is
    where the entry begins in the file, in bytes (0 for one not read from a file).
    """

    message: EntryT_co
    payload: bytes = b""
    parts: tuple[Entry[m.ipc_msg], ...] = ()
    offset: int = 0


class Source:
    """Exact reads from a stream of unknown length; its errors name file and offset."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        self.offset = 0

    def error(self, text: str, *, hint: str | None = None) -> ImageError:
        return ImageError(f"{self.name}: at byte {self.offset}: {text}", hint=hint)

    def _read(self, n_bytes: int) -> bytes:
        try:
            return self._stream.read(n_bytes)
        except OSError as error:
            raise self.error(f"cannot read: {error.strerror}") from error

    def read(self, n_bytes: int, what: str) -> bytes:
        """Exactly *n_bytes*; ImageError where the file ends before.

        Reads in steps, so a lie about a length costs nothing.
        """
        if n_bytes > MAX_PAYLOAD_BYTES:
            raise self.error(f"{what} needs {n_bytes} bytes; at most {MAX_PAYLOAD_BYTES} are read into memory")
        data = self._read(n_bytes if n_bytes < _CHUNK else _CHUNK)
        if len(data) < n_bytes:
            pieces = [data]
            left = n_bytes - len(data)
            while data and left:
                data = self._read(min(left, _CHUNK))
                pieces.append(data)
                left -= len(data)
            if left:
                found = n_bytes - left
                raise self.error(f"truncated: {what} needs {n_bytes} bytes, {found} are left", hint=_TRUNCATED)
            data = b"".join(pieces)
        self.offset += n_bytes
        return data

    def read_length(self) -> int | None:
        """The length before a message, None at the end of the file."""
        data = self._read(4)
        if not data:
            return None
        if len(data) < 4:
            rest = self._read(4 - len(data))
            if len(data) + len(rest) < 4:
                raise self.error(f"{len(data)} bytes too many: neither an entry nor the end", hint=_TRUNCATED)
            data += rest
        (length,) = U32.unpack(data)
        if length > MAX_ENTRY_BYTES:
            raise self.error(f"an entry of {length} bytes; at most {MAX_ENTRY_BYTES} are believed")
        self.offset += 4
        return cast(int, length)

    def read_rest(self) -> bytes:
        """Everything up to the end of the file."""
        pieces = []
        total = 0
        while data := self._read(_CHUNK):
            pieces.append(data)
            self.offset += len(data)
            total += len(data)
            if total > MAX_PAYLOAD_BYTES:
                raise self.error(f"at most {MAX_PAYLOAD_BYTES} bytes are read into memory")
        return b"".join(pieces)


_TRUNCATED = "the image was cut off, or its dump did not finish; dump again or copy it again"


def parse_message(message_type: type[EntryT_co], data: bytes, name: str, index: int = 0, offset: int = 0) -> EntryT_co:
    """*data*, which is entry *index* of the file *name*, at byte *offset*, as a message.

    Raises ImageError for bytes that are no such message, and for missing required fields.
    """
    try:
        message = message_type.FromString(data)
    except decode_errors() as error:
        where = f"{name}: entry {index} at byte {offset}"
        raise ImageError(f"{where}: not a {message_type.__name__}: {error}") from error
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        where = f"{name}: entry {index} at byte {offset}"
        raise ImageError(f"{where}: {message_type.__name__} without the required {missing}")
    return message


def serialize(message: m.Message, where: str) -> bytes:
    """The bytes of *message*; ImageError where a required field is not set."""
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        raise ImageError(f"{where}: cannot write {message.DESCRIPTOR.name} without {missing}")
    return message.SerializeToString()


def read_header(source: Source, kind: ImageKind[m.Message]) -> None:
    """Take the magics of *kind* from the beginning; ImageError for any others."""
    if kind.magic is None:
        raise ImageError(f"{source.name}: {kind.name} is a raw image, without entries")
    expected = [kind.magic]
    if kind.name != kinds.INVENTORY.name:
        expected.insert(0, kinds.SERVICE_MAGIC if kind.service else kinds.COMMON_MAGIC)
    for magic in expected:
        offset = source.offset
        (found,) = U32.unpack(source.read(4, "the magic"))
        if found != magic:
            other = kinds.by_magic(found)
            told = f" (that of {other.name})" if other else ""
            text = f"{source.name}: at byte {offset}: not an image of kind {kind.name}"
            raise ImageError(f"{text}: magic {magic:#x} expected, {found:#x}{told} found")


def header(kind: ImageKind[m.Message]) -> bytes:
    """The magics with which an image of *kind* begins."""
    if kind.magic is None:
        raise ImageError(f"{kind.name} is a raw image, without entries")
    if kind.name == kinds.INVENTORY.name:
        return U32.pack(kind.magic)
    return U32.pack(kinds.SERVICE_MAGIC if kind.service else kinds.COMMON_MAGIC) + U32.pack(kind.magic)


def read_entries(stream: BinaryIO, kind: ImageKind[EntryT_co], name: str | None = None) -> Iterator[Entry[EntryT_co]]:
    """The entries of an image of *kind*, in order.  *name* is for errors: the file's.

    The later entries of a pagemap (pagemap_entry) and of a ghost file (ghost_chunk_entry) differ in type from the
    first.  Raises ImageError for anything that is not such an image.
    """
    from torpor.images.payloads import READERS, later_entry

    source = Source(stream, name or kind.file_pattern)
    read_header(source, kind)
    read_payload = READERS[kind.payload] if kind.payload else None
    message_type = cast("type[EntryT_co]", message_class(kind.entry or ""))
    for index in range(MAX_ENTRIES):
        offset = source.offset
        length = source.read_length()
        if length is None:
            return
        data = source.read(length, "the entry")
        message = parse_message(message_type, data, source.name, index, offset)
        if read_payload:
            yield read_payload(source, message, offset)
        else:
            yield Entry(message, offset=offset)
        if index == 0 and (later := later_entry(kind)):
            message_type = cast("type[EntryT_co]", message_class(later))
    raise source.error(f"more than {MAX_ENTRIES} entries")


def read_messages(stream: BinaryIO, kind: ImageKind[EntryT_co], name: str | None = None) -> list[EntryT_co]:
    """The messages of an image of *kind*, without payloads; raises as ``read_entries`` does.

    Images of many small entries are read at once; one that is not as it should be is left to ``read_entries``.
    """
    from torpor.images.payloads import READERS, later_entry

    later = later_entry(kind)
    if (kind.payload and READERS[kind.payload]) or not stream.seekable():
        return [entry.message for entry in read_entries(stream, kind, name)]
    data = stream.read(_AT_ONCE)
    found = _split(data, kind, later) if len(data) < _AT_ONCE else None
    if found is None:
        stream.seek(0)
        return [entry.message for entry in read_entries(stream, kind, name)]
    return found


def _split(data: bytes, kind: ImageKind[EntryT_co], later: str | None) -> list[EntryT_co] | None:
    """The messages of a whole image, those after the first of the type *later*; None for one with anything wrong."""
    magics = header(kind)
    if not data.startswith(magics):
        return None
    found = []
    unpack, parse = U32.unpack_from, cast("type[EntryT_co]", message_class(kind.entry or "")).FromString
    at, size = len(magics), len(data)
    try:
        while at < size:
            start = at + 4
            at = start + unpack(data, at)[0]
            message = parse(data[start:at])
            if at > size or not message.IsInitialized():
                return None
            found.append(message)
            if later and len(found) == 1:
                parse = cast("type[EntryT_co]", message_class(later)).FromString
    except Exception as error:
        if not isinstance(error, (struct.error, *decode_errors())):
            raise
        return None
    return found


def encode_entry(kind: ImageKind[m.Message], entry: Entry[m.Message], moved: Moved | None = None) -> bytes:
    """An entry as it stands in the file, without what *moved* takes.  ImageError where its payload is not what the
    message says.
    """
    from torpor.images.payloads import encode_payload

    data = serialize(entry.message, kind.file_pattern)
    if moved is not None:
        data = moved.take(data)
    return U32.pack(len(data)) + data + (encode_payload(kind, entry) if kind.payload else b"")


def write_entry(stream: BinaryIO, kind: ImageKind[m.Message], entry: Entry[m.Message] | m.Message) -> None:
    """Append one entry to an image whose header is written."""
    stream.write(encode_entry(kind, entry if isinstance(entry, Entry) else Entry(entry)))


def encode_image(
    kind: ImageKind[m.Message], entries: Iterable[Entry[m.Message] | m.Message], moved: Moved | None = None
) -> bytes:
    """A whole image, without what *moved* takes."""
    if kind.payload:
        whole = [encode_entry(kind, entry if isinstance(entry, Entry) else Entry(entry), moved) for entry in entries]
        return b"".join((header(kind), *whole))
    # ``encode_entry`` for entries without payload, in one loop: there may be thousands of them.
    parts = [header(kind)]
    for entry in entries:
        data = serialize(entry.message if isinstance(entry, Entry) else entry, kind.file_pattern)
        if moved is not None:
            data = moved.take(data)
        parts += (U32.pack(len(data)), data)
    return b"".join(parts)
