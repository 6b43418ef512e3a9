"""Images that are netlink messages as the kernel gave them, and as iproute2's ``save`` and ``restore`` have them.

Kernel view
    The parts of an answer to a dump request of netlink(7), each with NLM_F_MULTI.
Image
    A magic word, which says whose table it is, then messages with their headers.  Those about connections, and our own
    (``torpor-*``), have no magic word.
Restore
    An image that is missing or empty is one of an empty table.
Limits
    Looked at here are the types of messages and their least lengths; what is in them, by whoever sends them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore
from torpor.kernel.netlink import NLM_F_MULTI, encode, iter_messages

#: Of ``ip addr save``, ``ip route save`` and ``ip rule save``.
ADDRESSES, ROUTES, RULES = 0x47361222, 0x45311224, 0x71706986

_MAGIC = struct.Struct("<I")


def store(
    where: ImageStore, kind: ImageKind[m.Message], ident: int, messages: Iterable[tuple[int, bytes]], magic: int = 0
) -> None:
    """Write (type, payload) of each message."""
    data = b"".join([encode(number, NLM_F_MULTI, payload) for number, payload in messages])
    with where.open_write(kind.file_name(ident)) as stream:
        stream.write((_MAGIC.pack(magic) if magic else b"") + data)


def load(
    where: ImageStore,
    kind: ImageKind[m.Message],
    ident: int,
    expected: Sequence[tuple[int, int]],
    magic: int = 0,
) -> list[tuple[int, bytes]]:
    """(type, payload) of each message; ImageError for one whose type is not *expected*.

    *expected* are types, each with the length of the structure that its payload begins with.
    """
    name = kind.file_name(ident)
    if not where.exists(name):
        return []
    with where.open_read(name) as stream:
        data = stream.read()
    if magic and data:
        if len(data) < _MAGIC.size or _MAGIC.unpack_from(data)[0] != magic:
            raise ImageError(f"{name} does not begin as it should")
        data = data[_MAGIC.size :]
    found, length = [], 0
    shortest = dict(expected)
    for number, _, payload in iter_messages(data):
        if len(payload) < shortest.get(number, 1 << 32):
            raise ImageError(f"{name} has a message that does not belong into it (type {number})")
        found.append((number, payload))
        length += len(payload) + 16 + 3 & ~3
    if length != len(data):
        raise ImageError(f"{name} ends within a message")
    return found
