"""Reading files of /proc: no buffers, no newline translation; three system calls for a small one."""

from __future__ import annotations

import os

_SIZE = 16384
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
