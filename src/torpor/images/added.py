"""Fields that torpor adds to CRIU's messages, kept out of CRIU's images: ``core-5.img.torpor`` beside ``core-5.img``.

Other programs do not know these fields: ``crit decode`` and ``crit encode`` would lose them.  So they are taken out of
the messages when an image is stored, and put back when it is loaded; what writes and reads messages uses them like any
others.  An image without added fields has no such file, and fields that stand in an image are read as well.

The file has the magic, a ``torpor_added_head``, and for the image's entries messages of their type in which everything
is left out but the added fields and the way to them.  An entry, or one of several submessages, is known by its key
(``HOLDERS``: a file's id, a mapping's start), so that an image may be changed and encoded again; those of types without
a key by their place among all, the others being empty.  What then does not fit is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from torpor.base import log
from torpor.base.typed import TYPE_CHECKING, Any
from torpor.images._descriptors import ADDED_FILE, HOLDERS
from torpor.images._registry import decode_errors, message_class, open_pool_of
from torpor.images.errors import ImageError
from torpor.images.format import MAX_ENTRIES, U32, Source, parse_message

if TYPE_CHECKING:
    from torpor.images import messages as m
    from torpor.images.kinds import ImageKind
    from torpor.images.store import ImageStore

MAGIC = 0x54525052
SUFFIX = ".torpor"
_FIRST_NUMBER = 10000
#: The last two bytes of the tags of fields 10000 to 10015: a message without these has no added fields.
_MARK = b"\xf1\x04"
_CHUNK = 1 << 20


def may_hold(kind: ImageKind[m.Message]) -> bool:
    """Whether messages of an image of this kind can have added fields."""
    return kind.entry in HOLDERS


@cache
def _class_of(name: str) -> type[Any]:
    made: type[Any] = open_pool_of(ADDED_FILE).message_class(name)
    return made


@cache
def _whole_class_of(name: str) -> type[Any]:
    return message_class(name)


class Moved:
    """The added fields of one image that is being encoded."""

    def __init__(self, kind: ImageKind[m.Message]) -> None:
        self._entry = kind.entry or ""
        self._by_key = HOLDERS[self._entry] is not None
        self._kept: list[bytes] = []
        self._n_entries = 0
        self._found = False

    def take(self, data: bytes) -> bytes:
        """The next entry, serialized, without its added fields."""
        self._n_entries += 1
        kept = b""
        if _MARK in data:
            message, own = _whole_class_of(self._entry).FromString(data), _class_of(self._entry).FromString(data)
            own.DiscardUnknownFields()
            if _move(message, own):
                data, kept = message.SerializeToString(), own.SerializePartialToString()
                self._found = True
        if kept or not self._by_key:
            self._kept.append(kept)
        return data

    def encode(self, image: bytes) -> bytes:
        """The file of what was taken out of *image*; empty if that is nothing."""
        return self._encode(image) if self._found else b""

    def nothing(self, image: bytes) -> bytes:
        """A file that takes the place of an earlier image's."""
        self._kept.clear()
        return self._encode(image)

    def _encode(self, image: bytes) -> bytes:
        head = message_class("torpor_added_head")()
        head.n_entries, head.crc = self._n_entries, _crc([image])  # type: ignore[attr-defined]
        parts = [U32.pack(MAGIC)]
        for each in (head.SerializeToString(), *self._kept):
            parts += (U32.pack(len(each)), each)
        return b"".join(parts)


def _crc(pieces: Iterable[bytes]) -> int:
    from zlib import crc32

    found = 0
    for piece in pieces:
        found = crc32(piece, found)
    return found


def _move(message: Any, own: Any) -> bool:
    """Clear in *message* what *own*, the added fields of it, has; of *own* only what leads to some is left."""
    found = False
    several = []
    for field, value in own.ListFields():
        if field.number >= _FIRST_NUMBER:
            message.ClearField(field.name)
            found = True
        elif hasattr(value, "ListFields"):
            if _move(getattr(message, field.name), value):
                found = True
            else:
                own.ClearField(field.name)
        elif hasattr(value, "add"):
            several.append((field.name, value))
    # There may be thousands of these, and hardly one with an added field: the bytes of all are searched for one first.
    for name, values in several:
        if _MARK in message.SerializePartialToString():
            found |= _move_each(getattr(message, name), values, own, name)
        else:
            own.ClearField(name)
    return found


def _move_each(messages: Any, values: Any, own: Any, name: str) -> bool:
    marked = [_move(message, value) for message, value in zip(messages, values, strict=True)]
    if not any(marked):
        own.ClearField(name)
    elif HOLDERS[messages[0].DESCRIPTOR.name] is not None:
        kept = [value.SerializePartialToString() for value, is_it in zip(values, marked, strict=True) if is_it]
        own.ClearField(name)
        for data in kept:
            getattr(own, name).add().MergeFromString(data)
    return any(marked)


class Added:
    """The added fields of one image that is being loaded."""

    def __init__(self, kind: ImageKind[m.Message], name: str, data: list[bytes], n_entries: int) -> None:
        self._entry = kind.entry or ""
        self._key = HOLDERS[self._entry]
        self._name = name
        self._n_entries = n_entries
        self._n_seen = 0
        kept: list[Any] = [parse_message(_class_of(self._entry), each, name + SUFFIX) for each in data]
        self._by_key: dict[int, list[Any]] = {}
        if self._key is not None:
            for own in kept:
                self._by_key.setdefault(getattr(own, self._key), []).append(own)
        self._by_place = kept if self._key is None else []

    def merge(self, message: Any) -> None:
        """Put back what the next entry had."""
        if self._key is not None:
            several = self._by_key.get(getattr(message, self._key))
            own = several.pop(0) if several else None
        else:
            own = self._by_place[self._n_seen] if self._n_seen < len(self._by_place) else None
        self._n_seen += 1
        if own is None:
            return
        try:
            _merge(message, own)
        except decode_errors() as error:
            raise ImageError(f"{self._name}{SUFFIX}: damaged: {error}") from error
        if not message.IsInitialized():
            raise self._fault(f"entry {self._n_seen - 1} is not what it was")

    def finish(self) -> None:
        """ImageError where fields are left that belong to entries by their place; a word about others."""
        if self._by_place and self._n_seen != self._n_entries:
            raise self._fault(f"it had {self._n_entries} entries, and has {self._n_seen}")
        for key in (key for key, several in self._by_key.items() if several):
            log.warn(f"{self._name} has no entry of the {self._key} {key} any more, to which {SUFFIX} adds something")

    def _fault(self, what: str) -> ImageError:
        return ImageError(
            f"{self._name} was changed: {what}, and so {self._name}{SUFFIX} does not fit",
            hint=f"without {self._name}{SUFFIX} the image is restored as CRIU would",
        )


class _DoesNotFit(ValueError):
    """One of decode_errors()."""


def _merge(message: Any, own: Any) -> None:
    _merge_several(message, own)
    message.MergeFromString(own.SerializePartialToString())


def _merge_several(message: Any, own: Any) -> None:
    """Put back, and take from *own*, what belongs to one of several submessages: merging would append them."""
    for field, value in own.ListFields():
        if field.number >= _FIRST_NUMBER:
            continue
        if hasattr(value, "ListFields"):
            if not message.HasField(field.name):
                raise _DoesNotFit(f"{field.name} is gone")
            _merge_several(getattr(message, field.name), value)
        elif hasattr(value, "add"):
            for target, each in _pairs(getattr(message, field.name), value, field.name):
                _merge(target, each)
            own.ClearField(field.name)


def _pairs(messages: Any, values: Any, name: str) -> list[tuple[Any, Any]]:
    key = HOLDERS[values[0].DESCRIPTOR.name]
    if key is None:
        if len(messages) != len(values):
            raise _DoesNotFit(f"there were {len(values)} of {name}, and are {len(messages)}")
        return list(zip(messages, values, strict=True))
    by_key: dict[int, Any] = {}
    for message in messages:
        by_key.setdefault(getattr(message, key), message)
    found = [(by_key.get(getattr(value, key)), value) for value in values]
    for target, value in found:
        if target is None:
            log.warn(f"the {name} of the {key} {getattr(value, key)} is gone, to which {SUFFIX} adds something")
    return [pair for pair in found if pair[0] is not None]


def load_added(store: ImageStore, kind: ImageKind[m.Message], name: str) -> Added | None:
    """What belongs to the image *name*; None where it has no added fields beside it.  ImageError."""
    if not may_hold(kind) or not store.exists(name + SUFFIX):
        return None
    with store.open_read(name + SUFFIX) as stream:
        source = Source(stream, name + SUFFIX)
        if U32.unpack(source.read(4, "the magic"))[0] != MAGIC:
            raise source.error("not a file of added fields")
        pieces: list[bytes] = []
        while (length := source.read_length()) is not None and len(pieces) <= MAX_ENTRIES:
            pieces.append(source.read(length, "the entry"))
    if not pieces:
        raise source.error("has no head")
    head: Any = parse_message(message_class("torpor_added_head"), pieces.pop(0), source.name)
    if pieces and _crc_of(store, name) != head.crc:
        log.warn(f"{name} is not as torpor wrote it; what {source.name} adds is used where it fits")
    return Added(kind, name, pieces, head.n_entries)


def _crc_of(store: ImageStore, name: str) -> int:
    with store.open_read(name) as stream:
        return _crc(iter(lambda: stream.read(_CHUNK), b""))
