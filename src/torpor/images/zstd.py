"""zstd, which is what Podman compresses with by default, by the C library that every distribution has.

Python knows the format from 3.14 on only.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any, Protocol

from torpor.images.errors import ImageError

#: zstd.h: ZSTD_c_compressionLevel, ZSTD_c_checksumFlag, ZSTD_c_nbWorkers; ZSTD_e_continue, ZSTD_e_end.
_LEVEL, _CHECKSUM, _WORKERS = 100, 201, 400
_CONTINUE, _END = 0, 2
_GOOD_LEVEL = 3
#: For what somebody waits for.
_FAST_LEVEL = 1
_MAX_WORKERS = 8
_N_IN = 1 << 17
_N_OUT = 1 << 17


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer (zstd.h)."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t))


@cache
def _library() -> Any:
    try:
        found = ctypes.CDLL("libzstd.so.1")
    except OSError:
        raise ImageError("there is no zstd here", hint="install libzstd (Debian: libzstd1)") from None
    found.ZSTD_createDStream.restype = ctypes.c_void_p
    found.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    found.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    found.ZSTD_decompressStream.restype = ctypes.c_size_t
    found.ZSTD_createCCtx.restype = ctypes.c_void_p
    found.ZSTD_freeCCtx.argtypes = (ctypes.c_void_p,)
    found.ZSTD_CCtx_setParameter.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    found.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
    found.ZSTD_compressStream2.argtypes = (
        ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer), ctypes.c_int,
    )  # fmt: skip
    found.ZSTD_compressStream2.restype = ctypes.c_size_t
    found.ZSTD_compressBound.argtypes = (ctypes.c_size_t,)
    found.ZSTD_compressBound.restype = ctypes.c_size_t
    found.ZSTD_compress2.argtypes = (
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
    )  # fmt: skip
    found.ZSTD_compress2.restype = ctypes.c_size_t
    found.ZSTD_decompress.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    found.ZSTD_decompress.restype = ctypes.c_size_t
    found.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.restype = ctypes.c_char_p
    return found


def load_library() -> None:
    """Have it loaded; ImageError where there is none."""
    _library()


def bound(n_bytes: int) -> int:
    """What *n_bytes* come to at worst."""
    return int(_library().ZSTD_compressBound(n_bytes))


def compress(data: bytes) -> bytes:
    """*data* as one frame with a checksum, quickly; several threads may do it at once."""
    library = _library()
    room = ctypes.create_string_buffer(bound(len(data)))
    context = library.ZSTD_createCCtx()
    try:
        for key, value in ((_LEVEL, _FAST_LEVEL), (_CHECKSUM, 1)):
            library.ZSTD_CCtx_setParameter(context, key, value)
        n_bytes = library.ZSTD_compress2(context, room, len(room), data, len(data))
    finally:
        library.ZSTD_freeCCtx(context)
    if library.ZSTD_isError(n_bytes):
        raise ImageError(f"zstd: {library.ZSTD_getErrorName(n_bytes).decode(errors='replace')}")
    return room.raw[:n_bytes]


def decompress(data: bytes, into: memoryview) -> bool:
    """Fill *into*; False where *data* does not hold just that much.  No more than that is ever made of it."""
    library = _library()
    n_bytes = library.ZSTD_decompress((ctypes.c_char * len(into)).from_buffer(into), len(into), data, len(data))
    return not library.ZSTD_isError(n_bytes) and n_bytes == len(into)


class _Readable(Protocol):
    def read(self, n_bytes: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class ZstdReader:
    """What a compressed stream holds, from its beginning.  ImageError where it is damaged or cut off.

    Memory is bounded: the library refuses windows above 128 MiB.
    """

    def __init__(self, stream: _Readable) -> None:
        self._zstd = _library()
        self._stream = stream
        self._context: int | None = self._zstd.ZSTD_createDStream()
        self._in = ctypes.create_string_buffer(_N_IN)
        self._out = ctypes.create_string_buffer(_N_OUT)
        self._input = _Buffer(ctypes.addressof(self._in), 0, 0)
        self._ready = b""
        self._in_frame = False
        self._is_full = False

    def read(self, n_bytes: int) -> bytes:
        """Up to *n_bytes*; none at the end."""
        while not self._ready:
            if self._input.at == self._input.size and not self._is_full and not self._refill():
                return b""
            self._step()
        piece, self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return piece

    def _refill(self) -> bool:
        data = self._stream.read(_N_IN)
        if not data:
            if self._in_frame:
                raise ImageError("the zstd stream is cut off")
            return False
        ctypes.memmove(self._in, data, len(data))
        self._input.size, self._input.at = len(data), 0
        return True

    def _step(self) -> None:
        output = _Buffer(ctypes.addressof(self._out), _N_OUT, 0)
        left = self._zstd.ZSTD_decompressStream(self._context, ctypes.byref(output), ctypes.byref(self._input))
        if self._zstd.ZSTD_isError(left):
            name = self._zstd.ZSTD_getErrorName(left).decode(errors="replace")
            raise ImageError(f"the zstd stream is damaged: {name}")
        self._in_frame = left != 0
        # It may hold more that has not found room yet.
        self._is_full = self._in_frame and output.at == _N_OUT
        self._ready = ctypes.string_at(self._out, output.at)

    def close(self) -> None:
        """Free what the library holds."""
        if self._context is not None:
            self._zstd.ZSTD_freeDStream(self._context)
            self._context = None


class ZstdWriter:
    """Compresses what is written, by as many threads as there are processors; ``close`` ends the stream.

    The stream has a checksum, so that damage is told when it is read.
    """

    def __init__(self, stream: _Writable) -> None:
        self._zstd = _library()
        self._stream = stream
        self._context: int | None = self._zstd.ZSTD_createCCtx()
        self._out = ctypes.create_string_buffer(_N_OUT)
        n_workers = min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
        # A library that was built without threads says no to workers, and does it by itself.
        for key, value in ((_LEVEL, _GOOD_LEVEL), (_CHECKSUM, 1), (_WORKERS, n_workers)):
            self._zstd.ZSTD_CCtx_setParameter(self._context, key, value)

    def write(self, data: bytes | memoryview) -> int:
        """Compress all of *data*, and write what is ready; its length, as file objects give it.  ImageError."""
        data = bytes(data)
        room = ctypes.create_string_buffer(data, len(data))
        source = _Buffer(ctypes.addressof(room), len(data), 0)
        while source.at < source.size:
            self._step(source, _CONTINUE)
        return len(data)

    def close(self) -> None:
        """Write what is left, and free what the library holds."""
        if self._context is None:
            return
        nothing = _Buffer(None, 0, 0)
        while self._step(nothing, _END):
            pass
        self._free()

    def _step(self, source: _Buffer, what: int) -> int:
        """The bytes that are left to be written, at least."""
        output = _Buffer(ctypes.addressof(self._out), _N_OUT, 0)
        left = self._zstd.ZSTD_compressStream2(self._context, ctypes.byref(output), ctypes.byref(source), what)
        if self._zstd.ZSTD_isError(left):
            raise ImageError(f"zstd: {self._zstd.ZSTD_getErrorName(left).decode(errors='replace')}")
        self._stream.write(ctypes.string_at(self._out, output.at))
        return int(left)

    def _free(self) -> None:
        self._zstd.ZSTD_freeCCtx(self._context)
        self._context = None

    def __del__(self) -> None:
        if self._context is not None:
            self._free()
