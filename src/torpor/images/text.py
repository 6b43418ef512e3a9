"""String fields that are not UTF-8: file names and comm may hold any byte.

The schema calls them strings, and the C core gives a value which is not UTF-8 as bytes and takes none.  Here they are
str with surrogates, as ``os.fsdecode`` has them; on the wire they are the bytes themselves, as in CRIU.
"""

from __future__ import annotations

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.images import messages as m

_LENGTH_DELIMITED = 2


def get_text(value: str | bytes) -> str:
    """The value of a string field, as read from a message, as str with surrogates for bytes that are not UTF-8."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def set_text(message: m.Message, field: str, value: str | bytes) -> None:
    """Set the string field *field* (appends, where it is repeated) to *value*, surrogates and other bytes included."""
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    number = next(f.number for f in message.DESCRIPTOR.fields if f.name == field)
    message.MergeFromString(_varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(raw)) + raw)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
