"""LZ4 frames, by the package ``lz4``, which not everybody has: little is saved, and little time taken.

Source
    lz4_Frame_format.md of the LZ4 project.
"""

from __future__ import annotations

from typing import Any, Protocol

from torpor.images.errors import ImageError

MAGIC = b"\x04\x22\x4d\x18"
_N_IN, _MOST_OUT = 1 << 17, 1 << 20


class _Readable(Protocol):
    def read(self, n_bytes: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def load_library() -> Any:
    """The package; ImageError where it is not installed."""
    try:
        import lz4.frame
    except ImportError:
        hint = "install the package lz4 (Debian: python3-lz4; or pip install lz4), or --compress zstd"
        raise ImageError("there is no lz4 here", hint=hint) from None
    return lz4.frame


class Lz4Reader:
    """What a compressed stream holds, from its beginning.  ImageError where it is damaged or cut off.

    Memory is bounded: what comes out of it at once is, whatever has gone in.
    """

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._work = load_library().LZ4FrameDecompressor()
        self._ready = b""

    def read(self, n_bytes: int) -> bytes:
        """Up to *n_bytes*; none at the end."""
        while not self._ready and not self._work.eof:
            data = self._stream.read(_N_IN) if self._work.needs_input else b""
            if not data and self._work.needs_input:
                raise ImageError("the lz4 stream is cut off")
            try:
                self._ready = self._work.decompress(data, _MOST_OUT)
            except RuntimeError as error:
                raise ImageError(f"the lz4 stream is damaged: {error}") from None
            # The end of what is read from has to be met, too.
            if self._work.eof and (self._work.unused_data or self._stream.read(1)):
                raise ImageError("the lz4 stream is damaged: something follows it")
        piece, self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return piece


class Lz4Writer:
    """Compresses what is written; ``close`` ends the stream, which has a checksum."""

    def __init__(self, stream: _Writable) -> None:
        self._stream = stream
        self._work: Any = load_library().LZ4FrameCompressor(content_checksum=True, block_linked=False)
        stream.write(self._work.begin())

    def write(self, data: bytes | memoryview) -> int:
        """Compress all of *data*, and write what is ready; its length, as file objects give it."""
        if made := self._work.compress(data):
            self._stream.write(made)
        return len(data)

    def close(self) -> None:
        """Write what is left."""
        if self._work is not None:
            self._stream.write(self._work.flush())
            self._work = None
