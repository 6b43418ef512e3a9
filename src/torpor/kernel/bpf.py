"""BPF maps by bpf(2), and whether programs are attached.  Layouts as in ``union bpf_attr`` of linux/bpf.h."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.bpf import BPF_PROG_QUERY

HASH, ARRAY, LRU_HASH, LPM_TRIE = 1, 2, 9, 11
_MAP_CREATE, _GET_FD_BY_ID, _OBJ_GET_INFO = 0, 14, 15
_MAP_FREEZE, _LOOKUP_BATCH, _UPDATE_BATCH = 22, 24, 26
_create = struct.Struct("<7I16s5IQ")
_batch = struct.Struct("<4Q2I2Q")
_info = struct.Struct("<6I16sI")
_INFO_SIZE = 88
_query = struct.Struct("<4IQ2I4Q")
_CHUNK = 4096


def _bpf(name: str, command: int, attr: bytearray) -> int:
    return syscall(f"bpf({name})", nr.bpf, command, address_of(attr), len(attr))


def name_of(fd: int) -> tuple[bytes, int]:
    """The map's name, and the index of the interface that it is bound to."""
    info = bytearray(_INFO_SIZE)
    attr = bytearray(struct.pack("<IIQ", fd, len(info), address_of(info)))
    _bpf("OBJ_GET_INFO_BY_FD", _OBJ_GET_INFO, attr)
    fields = _info.unpack_from(info)
    return fields[6].rstrip(b"\0"), fields[7]


def create(kind: int, sizes: tuple[int, int, int], flags: int, name: bytes, ifindex: int, extra: int) -> int:
    """A new map; *sizes* are those of a key, of a value, and the number of entries."""
    attr = bytearray(_create.pack(kind, *sizes, flags, 0, 0, name, ifindex, 0, 0, 0, 0, extra))
    return _bpf("MAP_CREATE", _MAP_CREATE, attr)


def open_by_id(map_id: int, flags: int = 0) -> int:
    """Another description of a map; *flags* are BPF_F_RDONLY or BPF_F_WRONLY."""
    return _bpf("MAP_GET_FD_BY_ID", _GET_FD_BY_ID, bytearray(struct.pack("<III", map_id, 0, flags)))


def freeze(fd: int) -> None:
    """Let nobody change the map by system calls any more."""
    _bpf("MAP_FREEZE", _MAP_FREEZE, bytearray(struct.pack("<I", fd)))


def iter_entries(fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """All entries, some at a time: keys and values, each one after the other."""
    room = _CHUNK
    place, is_first = bytearray(max(key_size, 8)), True
    while True:
        keys, values, following = bytearray(room * key_size), bytearray(room * value_size), bytearray(len(place))
        at = 0 if is_first else address_of(place)
        attr = bytearray(_batch.pack(at, address_of(following), address_of(keys), address_of(values), room, fd, 0, 0))
        is_last = False
        try:
            _bpf("MAP_LOOKUP_BATCH", _LOOKUP_BATCH, attr)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a bucket of the hash that is larger
                room *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            is_last = True
        count = _batch.unpack(attr)[4]
        yield bytes(keys[: count * key_size]), bytes(values[: count * value_size])
        if is_last:
            return
        place, is_first = following, False


def put_entries(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Put *count* entries into the map."""
    key_bytes, value_bytes = bytearray(keys), bytearray(values)
    attr = bytearray(_batch.pack(0, 0, address_of(key_bytes), address_of(value_bytes), count, fd, 0, 0))
    _bpf("MAP_UPDATE_BATCH", _UPDATE_BATCH, attr)


def count_attached(target: int, place: int) -> int:
    """How many programs are attached at *place* (BPF_SK_LOOKUP, ...) of a descriptor's thing or an interface.

    OSError where the kernel knows no such place, or does not tell us.
    """
    attr = bytearray(_query.pack(target, place, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    _bpf("PROG_QUERY", BPF_PROG_QUERY, attr)
    return int(_query.unpack(attr)[5])
