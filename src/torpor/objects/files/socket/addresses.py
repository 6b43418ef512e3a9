"""Internet addresses as images hold them: words in network order, read as this machine reads memory."""

from __future__ import annotations

import _socket as socket
import struct
from collections.abc import Sequence

from torpor.base.records import dataclass
from torpor.images.errors import ImageError

_AF_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


@dataclass(frozen=True, slots=True)
class Address:
    """An address and port; ``scope`` is an interface index, 0 where there is none."""

    words: tuple[int, ...]
    port: int
    scope: int = 0

    @property
    def is_any(self) -> bool:
        """Whether it is the address that stands for all."""
        return not any(self.words)


def read(sockaddr: object, family: int) -> Address:
    """What getsockname(2) or getpeername(2) gave in Python's form."""
    assert isinstance(sockaddr, tuple)
    packed = socket.inet_pton(family, sockaddr[0].partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return Address(words, sockaddr[1], sockaddr[3] if family == socket.AF_INET6 else 0)


def to_python(family: int, words: Sequence[int], port: int, scope: int = 0) -> tuple[str | int, ...]:
    """The address for bind(2) or connect(2) in Python's form; ImageError for what cannot be one."""
    size = _AF_SIZES.get(family, 0)
    # Old images have four words for IPv4 too.
    if len(words) * 4 < size or port > 0xFFFF:
        raise ImageError(f"files.img: an internet address of {len(words)} words, port {port}")
    text = socket.inet_ntop(family, struct.pack(f"={size // 4}I", *words[: size // 4]))
    return (text, port) if family == socket.AF_INET else (text, port, 0, scope)
