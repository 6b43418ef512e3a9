"""Classic BPF filters of sockets (SO_ATTACH_FILTER).

Kernel view
    SO_GET_FILTER, which counts in instructions, not bytes.
Image
    ``so_filter``: per instruction code << 48 | jt << 40 | jf << 32 | k.
Restore
    SO_ATTACH_FILTER, of at most 4096 instructions; the kernel checks the program once more.
Limits
    A program of bpf(2) as a filter is refused: the kernel says that there is one, and does not give it out.
"""

from __future__ import annotations

import _socket as socket
import ctypes
import os
import struct

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.socket import SO_ATTACH_FILTER, SO_GET_FILTER
from torpor.objects.files.model import OpenFile

_INSTRUCTION = struct.Struct("=HBBI")
_MAX_INSTRUCTIONS = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def dump(connection: Socket, count: int, opts: m.sk_opts_entry) -> None:
    """Fill in ``so_filter``, of *count* instructions, if there are any."""
    if not count:
        return
    room = ctypes.create_string_buffer(count * _INSTRUCTION.size)
    count = _get(connection, room, count)
    for code, jt, jf, k in _INSTRUCTION.iter_unpack(room.raw[: count * _INSTRUCTION.size]):
        opts.so_filter.append(code << 48 | jt << 40 | jf << 32 | k)


def count(file: OpenFile, connection: Socket) -> int:
    """How many instructions its filter has; RefusedError for a program of bpf(2), which nobody is given."""
    try:
        return _get(connection, None, 0)
    except PermissionError:
        raise file.refuse("a socket with an eBPF program as its filter", hint="detach it (SO_DETACH_FILTER)") from None


def _get(connection: Socket, room: ctypes.Array[ctypes.c_char] | None, count: int) -> int:
    # socket.getsockopt takes the length for bytes, and asking for none gives an integer.
    length = ctypes.c_uint(count)
    fd = connection.fileno()
    if _libc.getsockopt(fd, socket.SOL_SOCKET, SO_GET_FILTER, room, ctypes.byref(length)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"getsockopt(SO_GET_FILTER): {os.strerror(number)}")
    return length.value


def restore(connection: Socket, opts: m.sk_opts_entry, what: str) -> None:
    """Attach the filter, if there is one."""
    if not opts.so_filter:
        return
    if len(opts.so_filter) > _MAX_INSTRUCTIONS:
        raise ImageError(f"files.img: {what}: a filter of {len(opts.so_filter)} instructions")
    code = b"".join(
        _INSTRUCTION.pack(word >> 48, word >> 40 & 0xFF, word >> 32 & 0xFF, word & 0xFFFFFFFF)
        for word in opts.so_filter
    )
    room = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(opts.so_filter), ctypes.addressof(room))
    try:
        connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except OSError as error:
        raise RestoreError(f"{what}: its filter cannot be attached: {error.strerror}") from error
