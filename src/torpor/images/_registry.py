"""Message classes made from the schema on first use.

Start-up time decides the form: protobuf's public package takes 30 ms to import, its C core 4.  The core is a private
module, so where it is missing or has changed the public API makes the same classes, slower.
"""

from __future__ import annotations

from functools import cache

from torpor.base.late import load
from torpor.base.typed import TYPE_CHECKING, Any
from torpor.images._descriptors import FILE
from torpor.images._enums import Enum
from torpor.images._well_known import load_core, without_well_known_types

if TYPE_CHECKING:
    from torpor.images.messages import Message

_MODULE = "torpor.images.messages"
#: A message that every set of descriptors has: the first whose class is made.
_ANY = "core_entry"


class _CorePool:
    """Classes straight from the C core."""

    def __init__(self, file: bytes) -> None:
        self._core = load_core()
        self._pool = self._core.DescriptorPool()
        self._pool.AddSerializedFile(file)
        without_well_known_types(lambda: self.message_class(_ANY))

    def message_class(self, name: str) -> Any:
        """The class of the message *name*; KeyError where there is none.  The core makes each once, and keeps it."""
        descriptor = self._pool.FindMessageTypeByName(name)
        return self._core.MessageMeta(name, (), {"DESCRIPTOR": descriptor, "__module__": _MODULE})

    def enum_descriptor(self, name: str) -> Any:
        return self._pool.FindEnumTypeByName(name)


class _PublicPool:
    """Classes by the public API, for a protobuf without that C core."""

    def __init__(self, file: bytes) -> None:
        self._make = load("google.protobuf.message_factory").GetMessageClass
        self._pool = load("google.protobuf.descriptor_pool").DescriptorPool()
        self._pool.AddSerializedFile(file)

    def message_class(self, name: str) -> Any:
        return self._make(self._pool.FindMessageTypeByName(name))

    def enum_descriptor(self, name: str) -> Any:
        return self._pool.FindEnumTypeByName(name)


@cache
def open_pool_of(file: bytes) -> _CorePool | _PublicPool:
    """The one pool in this process of what the serialized FileDescriptorProto *file* describes."""
    try:
        return _CorePool(file)
    except (ImportError, AttributeError, TypeError):
        return _PublicPool(file)


def open_pool() -> _CorePool | _PublicPool:
    """That of the whole schema."""
    return open_pool_of(FILE)


def message_class(name: str) -> type[Message]:
    """The class of the message *name*; KeyError where the schema has none."""
    made: type[Message] = open_pool().message_class(name)
    return made


def decode_errors() -> tuple[type[Exception], ...]:
    """What parsing hostile bytes may raise: the core's DecodeError, and what the pure-Python parser lets through."""
    return (load("google.protobuf.message").DecodeError, ValueError, IndexError)


def lookup(name: str) -> object:
    """What ``torpor.images.messages`` has under *name*: a message class, an enum, or Message.

    Raises AttributeError for any other name.
    """
    if name == "Message":
        return load("google.protobuf.message").Message
    pool = open_pool()
    try:
        return message_class(name)
    except KeyError:
        pass
    try:
        descriptor = pool.enum_descriptor(name)
    except KeyError:
        raise AttributeError(f"the image schema has no message or enum {name!r}") from None
    return Enum(descriptor)
