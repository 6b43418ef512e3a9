"""Internet addresses as images hold them: words in network order, read as this machine reads memory."""

from __future__ import annotations

import _socket as socket
import struct
from collections.abc import Sequence

from torpor.base.errors import RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError

#: How an IPv4 address begins in IPv6's clothes.
MAPPED = bytes(10) + b"\xff\xff"
_AF_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


@dataclass(frozen=True, slots=True)
class Address:
    """An address and port; ``scope`` is an interface index, 0 where there is none."""

    words: tuple[int, ...]
    port: int
    scope: int = 0


def read(sockaddr: object, family: int) -> Address:
    """What getsockname(2) or getpeername(2) gave in Python's form."""
    assert isinstance(sockaddr, tuple)
    packed = socket.inet_pton(family, sockaddr[0].partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return Address(words, sockaddr[1], sockaddr[3] if family == socket.AF_INET6 else 0)


def plain_bytes(words: Sequence[int]) -> bytes:
    """An address packed, four or 16 bytes; IPv4 in IPv6's clothes is IPv4."""
    packed = struct.pack(f"={len(words)}I", *words)
    return packed[12:] if packed[:12] == MAPPED else packed


def parse(sockaddr: bytes) -> Address:
    """A ``struct sockaddr_in`` or ``sockaddr_in6`` as SO_PEERNAME gives it."""
    is_v4 = int.from_bytes(sockaddr[:2], "little") == socket.AF_INET
    packed = sockaddr[4:8] if is_v4 else sockaddr[8:24]
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    scope = 0 if is_v4 else int.from_bytes(sockaddr[24:28], "little")
    return Address(words, int.from_bytes(sockaddr[2:4], "big"), scope)


def to_python(family: int, words: Sequence[int], port: int, scope: int = 0) -> tuple[str | int, ...]:
    """The address for bind(2) or connect(2) in Python's form; ImageError for what cannot be one."""
    size = _AF_SIZES.get(family, 0)
    # Old images have four words for IPv4 too.
    if len(words) * 4 < size or port > 0xFFFF:
        raise ImageError(f"files.img: an internet address of {len(words)} words, port {port}")
    text = socket.inet_ntop(family, struct.pack(f"={size // 4}I", *words[: size // 4]))
    return (text, port) if family == socket.AF_INET else (text, port, 0, scope)


def scope_of(sk: m.inet_sk_entry, what: str) -> int:
    """The interface that a link-local address belongs to; RestoreError where there is none of that name."""
    if not sk.ifname:
        return 0
    try:
        return socket.if_nametoindex(sk.ifname)
    except OSError as error:
        raise RestoreError(f"{what}: there is no interface {sk.ifname}") from error
