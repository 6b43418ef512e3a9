"""Message classes made from the schema on first use.

Start-up time decides the form: protobuf's public package takes 30 ms to import, its C core 4. The core is a private
module, so where it is missing or has changed the public API makes the same classes, slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torpor.images._descriptors import FILE
from torpor.images._well_known import without_well_known_types

if TYPE_CHECKING:
    from torpor.images.messages import Message

_MODULE = "torpor.images.messages"


class _CorePool:
    """Classes straight from the C core."""

    def __init__(self) -> None:
        from google._upb import _message  # type: ignore[import-untyped]

        self._core = _message
        self._pool = _message.DescriptorPool()
        self._pool.AddSerializedFile(FILE)
        without_well_known_types(lambda: self.message_class("timeval"))

    def message_class(self, name: str) -> Any:
        """Raises KeyError for an unknown name. A class exists once: the core hands out the one it has."""
        descriptor = self._pool.FindMessageTypeByName(name)
        return self._core.MessageMeta(name, (), {"DESCRIPTOR": descriptor, "__module__": _MODULE})

    def enum_descriptor(self, name: str) -> Any:
        return self._pool.FindEnumTypeByName(name)


class _PublicPool:
    """Classes by the public API, for a protobuf without that C core."""

    def __init__(self) -> None:
        from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

        self._make = message_factory.GetMessageClass
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.AddSerializedFile(FILE)

    def message_class(self, name: str) -> Any:
        return self._make(self._pool.FindMessageTypeByName(name))

    def enum_descriptor(self, name: str) -> Any:
        return self._pool.FindEnumTypeByName(name)


_pool: _CorePool | _PublicPool | None = None


def _open_pool() -> _CorePool | _PublicPool:
    global _pool
    if _pool is None:
        try:
            _pool = _CorePool()
        except (ImportError, AttributeError, TypeError):
            _pool = _PublicPool()
    return _pool


def message_class(name: str) -> type[Message]:
    """The class of the message `name`; KeyError where the schema has none."""
    made: type[Message] = _open_pool().message_class(name)
    return made


def decode_errors() -> tuple[type[Exception], ...]:
    """What parsing hostile bytes may raise: the core's DecodeError, and what the pure-Python parser lets through."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    return (DecodeError, ValueError, IndexError)


def lookup(name: str) -> object:
    """What ``torpor.images.messages`` has under `name`: a message class, an enum, or Message. AttributeError otherwise."""
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper  # type: ignore[import-untyped]
    from google.protobuf.message import Message

    if name == "Message":
        return Message
    pool = _open_pool()
    try:
        return message_class(name)
    except KeyError:
        pass
    try:
        return EnumTypeWrapper(pool.enum_descriptor(name))
    except KeyError:
        raise AttributeError(f"the image schema has no message or enum {name!r}") from None
