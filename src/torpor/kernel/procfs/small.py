"""Reading files of /proc: no buffers, no newline translation; three system calls for a small one."""

from __future__ import annotations

import os
from collections.abc import Iterator

_SIZE = 16384
_PIECE = 1 << 17
# seq_file gives whole records up to the size of its buffer, a page at first: less than this is all there is.
_SURELY_WHOLE = 2048


def read_small(path: str) -> str:
    """All of the file, with surrogates for what is not UTF-8.  FileNotFoundError, ProcessLookupError: it is gone."""
    return read_bytes(path).decode(errors="surrogateescape")


def read_bytes(path: str) -> bytes:
    """All of the file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _SIZE)
        if len(data) > _SURELY_WHOLE:
            parts = [data]
            while more := os.read(fd, _SIZE):
                parts.append(more)
            data = b"".join(parts)
    finally:
        os.close(fd)
    return data


def iter_pieces(path: str, last: bytes) -> Iterator[str]:
    """The file in pieces of some 100 kB, each but the last up to the end of a line that begins with *last*.

    A large file so takes no memory that would have to be had first: that costs half as much as to read it.
    """
    buffer = bytearray(_PIECE)
    view, length, rest = memoryview(buffer), 0, b""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while n_bytes := os.readv(fd, [view[length:]]):
            length += n_bytes
            if length < _PIECE - 2 * _SIZE:
                continue
            data, length = rest + view[:length], 0
            at = data.rfind(b"\n" + last, 0, data.rfind(b"\n"))
            end = data.index(b"\n", at + 1) + 1 if at >= 0 else 0
            rest = data[end:]
            yield data[:end].decode(errors="surrogateescape")
        yield (rest + view[:length]).decode(errors="surrogateescape")
    finally:
        os.close(fd)
