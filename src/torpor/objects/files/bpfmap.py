"""BPF maps that hold plain data: arrays, hashes, tries of prefixes.

Kernel view
    ``anon_inode:bpf-map`` with type, sizes and flags in fdinfo; bpf(2) tells name and entries.
Image
    ``bpfmap_file_entry`` per description; ``bpfmap-data.img`` with the entries, once a map.
Restore
    A new map with the entries.
Limits
    A map has a new id afterwards, its entries in an LRU no age, and it loses its BTF types.  Programs that use it are
    refused where the tree has one open; programs and pins outside of the tree keep the old map.
"""

from __future__ import annotations

import os

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.kinds import BPFMAP_DATA
from torpor.images.store import Sorted
from torpor.kernel import bpf
from torpor.objects.files import fown, status_flags
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.session import DumpContext, RestoreContext

LINK = "anon_inode:bpf-map"
_TYPES = (bpf.HASH, bpf.ARRAY, bpf.LRU_HASH, bpf.LPM_TRIE)
_RDONLY, _WRONLY = 1 << 3, 1 << 4
_NO_PREALLOC_ETC = ~(_RDONLY | _WRONLY) & 0xFFFFFFFF
_MAX_BYTES = 1 << 32


def matches(file: OpenFile) -> bool:
    """By the link's text."""
    return file.target == LINK


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse maps of other types: of programs, other maps, sockets; queues, rings, per CPU."""
    kind = int(file.info("map_type"))
    if kind not in _TYPES:
        raise file.refuse(f"{file.target}: BPF maps of type {kind} are not supported", "close it before the checkpoint")


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.bpf``, and dump the entries once a map."""
    check(file, context)
    mine = entry.bpf
    mine.id, mine.flags, mine.pos = entry.id, file.flags, file.pos
    fown.fill(mine.fown, file)
    mine.map_type, mine.map_id = int(file.info("map_type")), int(file.info("map_id"))
    mine.key_size, mine.value_size = int(file.info("key_size")), int(file.info("value_size"))
    mine.max_entries, mine.map_flags = int(file.info("max_entries")), int(file.info("map_flags"), 16)
    mine.memlock, mine.frozen = int(file.info("memlock")), file.info("frozen") != "0"
    extra = [line for line in file.fdinfo if line.startswith("map_extra:")]
    if extra and int(extra[0].split()[1], 16):
        mine.map_extra = int(extra[0].split()[1], 16)
    name, mine.ifindex = bpf.name_of(file.fd)
    mine.map_name = name.decode("ascii", "replace")
    if context.once((LINK, mine.map_id)):
        _dump_entries(mine, context)


def _dump_entries(mine: m.bpfmap_file_entry, context: DumpContext) -> None:
    keys, values = bytearray(), bytearray()
    # By a description of our own: the tree's may be for writing only.
    with OwnedFd(bpf.open_by_id(mine.map_id)) as fd:
        for some_keys, some_values in bpf.iter_entries(fd.fileno(), mine.key_size, mine.value_size):
            keys += some_keys
            values += some_values
    data = m.bpfmap_data_entry(
        map_id=mine.map_id, keys_bytes=len(keys), values_bytes=len(values), count=len(keys) // mine.key_size
    )
    context.image("BPFMAP_DATA").add(Entry(data, bytes(keys + values)))


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """A map with its entries, or another description of one."""
    mine = entry.bpf
    if not mine.key_size or mine.max_entries * (mine.key_size + mine.value_size) > _MAX_BYTES:
        raise ImageError(f"BPF map {entry.id}: its size is impossible")
    try:
        made = context.files.shared((LINK, mine.map_id), lambda: _make(mine, context))
        flags = {os.O_RDONLY: _RDONLY, os.O_WRONLY: _WRONLY}.get(mine.flags & os.O_ACCMODE, 0)
        fd = bpf.open_by_id(_id_of(made), flags)
    except OSError as error:
        raise RestoreError(f"BPF map {mine.map_name}: {error}") from error
    status_flags.restore(fd, mine.flags)
    return fd


def _id_of(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("map_id:"))


def _make(mine: m.bpfmap_file_entry, context: RestoreContext) -> int:
    sizes = (mine.key_size, mine.value_size, mine.max_entries)
    flags = mine.map_flags & _NO_PREALLOC_ETC
    with OwnedFd(bpf.create(mine.map_type, sizes, flags, mine.map_name.encode(), mine.ifindex, mine.map_extra)) as fd:
        for part in context.part(_Contents).take(mine.map_id):
            data = part.message
            assert isinstance(data, m.bpfmap_data_entry)
            if not data.count:
                continue
            if (data.keys_bytes, data.values_bytes) != (data.count * mine.key_size, data.count * mine.value_size):
                raise ImageError(f"bpfmap-data.img: the entries of map {mine.map_id} are not of its size")
            keys, values = part.payload[: data.keys_bytes], part.payload[data.keys_bytes :]
            bpf.put_entries(fd.fileno(), keys, values, data.count)
        if mine.frozen:
            bpf.freeze(fd.fileno())
        return fd.release()


class _Contents(Sorted):
    """What was in the maps of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        super().__init__(context.store, BPFMAP_DATA, "map_id")


KIND = FileKind("BPF map", m.fd_types.BPFMAP, matches, dump, restore, check=check)
