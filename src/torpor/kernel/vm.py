"""process_vm_readv(2) and process_vm_writev(2): another task's memory, in vectors.

Both release the GIL and may be called from any thread.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall

#: Bytes of a page of this machine: the one place where it is asked for.
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
IOV_MAX = 1024


#: One local and one remote iovec, for the many short transfers.
_PAIR = struct.Struct("QQQQ")
_IOVEC_BYTES = 16


def read(pid: Pid, address: int, length: int) -> bytes:
    """Exactly *length* bytes at *address*, or OSError (EFAULT where part of it is not there)."""
    buffer = bytearray(length)
    read_into(pid, [(address, length)], memoryview(buffer))
    return bytes(buffer)


def write(pid: Pid, address: int, data: bytes | bytearray | memoryview) -> None:
    """All of *data* to *address*, or OSError."""
    write_from(pid, [(address, len(data))], memoryview(bytearray(data)))


def read_into(pid: Pid, ranges: Sequence[tuple[int, int]], into: memoryview) -> None:
    """Read the remote *ranges* (address, length), one after the other, into *into*."""
    _transfer("process_vm_readv", nr.process_vm_readv, pid, ranges, into)


def write_from(pid: Pid, ranges: Sequence[tuple[int, int]], data: memoryview) -> None:
    """Write *data* over the remote *ranges* (address, length), one after the other.  *data* must be writable memory."""
    _transfer("process_vm_writev", nr.process_vm_writev, pid, ranges, data)


def _transfer(name: str, number: int, pid: Pid, ranges: Sequence[tuple[int, int]], local: memoryview) -> None:
    if not ranges:
        return
    base = address_of(local)
    if len(ranges) == 1:
        address, length = ranges[0]
        pair = bytearray(_PAIR.pack(base, length, address, length))
        at = address_of(pair)
        if syscall(name, number, pid, at, 1, at + 16, 1) == length:
            return
    offset = 0
    for start in range(0, len(ranges), IOV_MAX):
        part = ranges[start : start + IOV_MAX]
        offset += _transfer_part(name, number, pid, part, base + offset)


def _transfer_part(name: str, number: int, pid: Pid, ranges: Sequence[tuple[int, int]], base: int) -> int:
    total = sum(length for _, length in ranges)
    todo = list(ranges)
    done = 0
    while done < total:
        words = [word for piece in todo for word in piece]
        vectors = bytearray(struct.pack(f"{2 + len(words)}Q", base + done, total - done, *words))
        at = address_of(vectors)
        moved = syscall(name, number, pid, at, 1, at + _IOVEC_BYTES, len(todo))
        done += moved
        if done < total:
            if moved == 0:
                raise OSError(14, f"{name}: nothing moved")
            todo = _after(todo, moved)
    return total


def _after(ranges: list[tuple[int, int]], moved: int) -> list[tuple[int, int]]:
    """What is left of *ranges* after their first *moved* bytes (one call moves at most 2 GiB)."""
    for index, (address, length) in enumerate(ranges):
        if moved < length:
            return [(address + moved, length - moved), *ranges[index + 1 :]]
        moved -= length
    return []
