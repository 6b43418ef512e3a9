"""The ebtables of old: filters of what bridges pass on.  Those of nftables' ``ebtables`` are nftables' (``ruleset``).

Kernel view
    EBT_SO_GET_* of a raw socket.  To ask for a table loads its module and makes the table, so only those are asked for
    whose module is there; a table that differs from how it begins is one that somebody has set.
Image
    None.
Restore
    None.
Limits
    They are lost, with a warning.
"""

from __future__ import annotations

import _socket as socket
import os
import struct

from torpor.kernel.arch import nr
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.ebtables import (
    EBT_SO_GET_ENTRIES,
    EBT_SO_GET_INFO,
    EBT_SO_GET_INIT_ENTRIES,
    EBT_SO_GET_INIT_INFO,
)

_TABLES = ("filter", "nat", "broute")
#: struct ebt_replace: the table's name, hooks, numbers of rules and bytes; entries of hooks; counters, rules.
_replace = struct.Struct("=32s3I4x6Q I4xQQ")


def tables() -> list[str]:
    """The tables of the thread's namespace that are not as they begin."""
    # A kernel without modules has all that it has: to ask loads none.
    is_whole = not os.path.exists("/proc/modules")
    found = [name for name in _TABLES if is_whole or os.path.exists(f"/sys/module/ebtable_{name}")]
    if not found:
        return []
    try:
        with Socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as connection:
            return [name for name in found if _is_set(connection, name)]
    except OSError:
        return []  # a kernel without IPv4


def _is_set(connection: Socket, name: str) -> bool:
    try:
        now = _read(connection, name, EBT_SO_GET_INFO, EBT_SO_GET_ENTRIES)
        return now != _read(connection, name, EBT_SO_GET_INIT_INFO, EBT_SO_GET_INIT_ENTRIES)
    except OSError:
        return False  # a kernel without


def _read(connection: Socket, name: str, info: int, entries: int) -> bytes:
    request = bytearray(_replace.pack(name.encode(), *[0] * 12))
    _get(connection, info, request, _replace.size)
    _, _, count, size, *_ = _replace.unpack(request)
    rules = bytearray(size)
    request = bytearray(_replace.pack(name.encode(), 0, count, size, *[0] * 8, address_of(rules)))
    _get(connection, entries, request, _replace.size + size)
    return bytes(rules)


def _get(connection: Socket, option: int, request: bytearray, length: int) -> None:
    said = bytearray(length.to_bytes(4, "little"))
    where = address_of(request), address_of(said)
    syscall("getsockopt", nr.getsockopt, connection.fileno(), socket.IPPROTO_IP, option, *where)
