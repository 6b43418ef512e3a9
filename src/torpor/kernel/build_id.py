"""The build id of an ELF file, which a linker makes from all that it puts into it.

The file may be anybody's: every number is checked against what was read, the first MiB at most.  As CRIU does, the
first note of the type NT_GNU_BUILD_ID is taken, whoever's name it bears.  The format is elf(5)'s.
"""

from __future__ import annotations

import os
import struct

_MAGIC = b"\x7fELF"
_LITTLE = 1
#: By the class of the file: e_phoff, e_phnum, the size of a program header, and in it p_offset and p_filesz.
_CLASSES = {1: ("<I", 28, "<H", 44, 32, "<I", 4, 16), 2: ("<Q", 32, "<H", 56, 56, "<Q", 8, 32)}
_NOTE = struct.Struct("<III")
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_FIRST_READ, _MAX_READ = 4096, 1 << 20
_MAX_BYTES = 512


def read_build_id(fd: int) -> bytes:
    """The build id of the file behind *fd*; empty where it has none, or is no such file.  OSError of pread(2)."""
    data = os.pread(fd, _FIRST_READ, 0)
    found = _find(data)
    if found is None and len(data) == _FIRST_READ:
        found = _find(os.pread(fd, _MAX_READ, 0))
    return found or b""


def find_build_id(data: bytes) -> bytes:
    """The build id of the file that begins with *data*; empty where it has none, or it lies further on."""
    return _find(data) or b""


def _find(data: bytes) -> bytes | None:
    """None where it may lie behind what was read."""
    if not data.startswith(_MAGIC) or len(data) < 64 or data[5] != _LITTLE or data[4] not in _CLASSES:
        return b""
    offset_form, offset_at, count_form, count_at, size, field_form, p_offset, p_filesz = _CLASSES[data[4]]
    (at,) = struct.unpack_from(offset_form, data, offset_at)
    (count,) = struct.unpack_from(count_form, data, count_at)
    is_whole = True
    for index in range(count):
        header = at + index * size
        if header + size > len(data):
            return None
        if struct.unpack_from("<I", data, header)[0] != _PT_NOTE:
            continue
        (start,) = struct.unpack_from(field_form, data, header + p_offset)
        (length,) = struct.unpack_from(field_form, data, header + p_filesz)
        found = _find_note(data, start, min(start + length, len(data)))
        if found:
            return found
        is_whole &= start + length <= len(data)
    return b"" if is_whole else None


def _find_note(data: bytes, at: int, end: int) -> bytes:
    while at + _NOTE.size <= end:
        name_size, size, kind = _NOTE.unpack_from(data, at)
        content = at + _NOTE.size + (name_size + 3 & -4)
        if kind == _NT_GNU_BUILD_ID:
            return data[content : content + size] if 0 < size <= _MAX_BYTES and content + size <= len(data) else b""
        at = content + (size + 3 & -4)
    return b""
