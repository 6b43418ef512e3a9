"""Messages and images as structures for JSON: what ``torpor inspect`` shows.

Numbers stay numbers, bytes become base64, enums their names, strings that are not UTF-8 hold surrogates.  Fields that
are not set are left out.  It goes one way only.
"""

from __future__ import annotations

from binascii import b2a_base64

from torpor.base.typed import TYPE_CHECKING
from torpor.images.text import get_text

if TYPE_CHECKING:
    from torpor.images import messages as m
    from torpor.images.format import Entry

_TYPE_STRING = 9
_TYPE_MESSAGE = 11
_TYPE_BYTES = 12
_TYPE_ENUM = 14


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _value(field: m._FieldDescriptor, value: object) -> object:
    if field.type == _TYPE_MESSAGE:
        return entry_to_json(value)  # type: ignore[arg-type]
    if field.type == _TYPE_STRING and isinstance(value, (str, bytes)):
        return get_text(value)
    if field.type == _TYPE_BYTES and isinstance(value, bytes):
        return _base64(value)
    if field.type == _TYPE_ENUM and field.enum_type:
        return next((constant.name for constant in field.enum_type.values if constant.number == value), value)
    return value


def entry_to_json(message: m.Message) -> dict[str, object]:
    """The set fields of *message*, in the order of their numbers."""
    out: dict[str, object] = {}
    for field, value in message.ListFields():
        repeated = not isinstance(value, (int, float, str, bytes)) and hasattr(value, "append")
        out[field.name] = [_value(field, item) for item in value] if repeated else _value(field, value)
    return out


def image_to_json(entries: list[Entry[m.Message]]) -> list[dict[str, object]]:
    """The entries of an image; payloads under "payload", the messages of a queue under "messages"."""
    out = []
    for entry in entries:
        item = entry_to_json(entry.message)
        if entry.payload:
            item["payload"] = _base64(entry.payload)
        if entry.parts:
            item["messages"] = image_to_json(list(entry.parts))
        out.append(item)
    return out
