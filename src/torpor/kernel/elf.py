"""The dynamic symbols of an ELF64 shared object that lies in memory as it is mapped: a vdso.

The bytes may be anybody's: every number is checked against their length, and no loop is longer than they are.  The
formats are elf(5)'s; DT_GNU_HASH's is the one that glibc reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from torpor.base.records import dataclass

_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MASK = (1 << 64) - 1
_PT_LOAD = 1
_PT_DYNAMIC = 2
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 0, 4, 5, 6, 10, 0x6FFFFEF5
_STT_FUNC = 2
_SHN_UNDEF = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function: ``offset`` and ``size`` in bytes, from the start of the object; both lie inside of it."""

    name: str
    offset: int
    size: int


class ElfError(ValueError):
    """The bytes are no such object, or one that contradicts itself."""


def read_functions(data: bytes) -> dict[str, Symbol]:
    """The functions that the object defines, by name.  ElfError for anything that is not well formed."""
    try:
        return _read_functions(data)
    except struct.error as error:
        raise ElfError(f"a table lies outside of the object: {error}") from error


def _read_functions(data: bytes) -> dict[str, Symbol]:
    base, dynamic = _segments(data)
    tables = dict(_iter_dynamic(data, dynamic))
    if _DT_SYMTAB not in tables or _DT_STRTAB not in tables:
        raise ElfError("no dynamic symbols")
    symbols, strings = (_offset(tables[tag], base, data) for tag in (_DT_SYMTAB, _DT_STRTAB))
    names = data[strings : strings + tables.get(_DT_STRSZ, 0)]
    found: dict[str, Symbol] = {}
    for index in range(_count_symbols(data, tables, base)):
        name, info, _, section, value, size = _SYMBOL.unpack_from(data, symbols + index * _SYMBOL.size)
        if info & 0xF != _STT_FUNC or section == _SHN_UNDEF:
            continue
        offset = _offset(value, base, data)
        end = names.find(b"\0", name)
        if end < 0 or offset + size > len(data):
            raise ElfError(f"symbol {index} lies outside of the object")
        text = names[name:end].decode("ascii", "backslashreplace")
        found[text] = Symbol(text, offset, size)
    return found


def _segments(data: bytes) -> tuple[int, int]:
    """The address that the object's first byte is linked at, and the offset of its dynamic section."""
    header = _HEADER.unpack_from(data)
    if header[0][: len(_MAGIC)] != _MAGIC:
        raise ElfError("not a 64-bit little-endian ELF object")
    at, size, count = header[5], header[9], header[10]
    if size != _PROGRAM.size or at + size * count > len(data):
        raise ElfError("no program headers")
    base = dynamic = None
    for index in range(count):
        kind, _, offset, address, *_ = _PROGRAM.unpack_from(data, at + index * size)
        if kind == _PT_LOAD and base is None:
            base = (address - offset) & _MASK
        elif kind == _PT_DYNAMIC:
            dynamic = offset
    if base is None or dynamic is None or dynamic > len(data):
        raise ElfError("nothing to load, or nothing dynamic")
    return base, dynamic


def _iter_dynamic(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    while True:
        tag, value = _DYNAMIC.unpack_from(data, at)
        if tag == _DT_NULL:
            return
        yield tag, value
        at += _DYNAMIC.size


def _offset(address: int, base: int, data: bytes) -> int:
    offset = (address - base) & _MASK
    if offset >= len(data):
        raise ElfError(f"the address {address:#x} lies outside of the object")
    return offset


def _count_symbols(data: bytes, tables: dict[int, int], base: int) -> int:
    """How many there are, which only hash tables tell; at most as many as there is room for."""
    if _DT_HASH in tables:
        _, count = struct.unpack_from("<II", data, _offset(tables[_DT_HASH], base, data))
    elif _DT_GNU_HASH in tables:
        count = _count_gnu(data, _offset(tables[_DT_GNU_HASH], base, data))
    else:
        raise ElfError("no hash table")
    if count * _SYMBOL.size > len(data):
        raise ElfError(f"{count} symbols are more than there is room for")
    return int(count)


def _count_gnu(data: bytes, at: int) -> int:
    """The end of the last chain."""
    n_buckets, first, n_words, _ = struct.unpack_from("<IIII", data, at)
    buckets = at + 16 + n_words * 8
    if n_buckets * 4 > len(data):
        raise ElfError("more hash buckets than there is room for")
    last = max(struct.unpack_from(f"<{n_buckets}I", data, buckets), default=0)
    if last < first:
        return int(first)
    chains = buckets + n_buckets * 4
    while not struct.unpack_from("<I", data, chains + (last - first) * 4)[0] & 1:
        last += 1
    return int(last) + 1
