"""Which multicast groups a socket has joined, and from which sources.

Kernel view
    ``/proc/PID/net/igmp`` and ``igmp6`` list the groups of each interface, whichever sockets have joined; the socket
    itself answers MCAST_MSFILTER for those that it has joined.
Image
    ``torpor_option`` with what MCAST_JOIN_GROUP or MCAST_JOIN_SOURCE_GROUP take, each membership one.
Restore
    As any option of a socket.
Limits
    Sources that are blocked (MCAST_BLOCK_SOURCE) come as such; other readers ignore all of it.
"""

from __future__ import annotations

import _socket as socket
import struct

from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.procfs.small import read_small
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.inet import MCAST_BLOCK_SOURCE, MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_MSFILTER
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext

_ADDRESS_SIZE = 128
_EXCLUDE = 0
# struct group_filter up to its sources; group_req and group_source_req begin in the same way.
_head = struct.Struct(f"I4x{_ADDRESS_SIZE}sII")
_MAX_SOURCES = 64
_OF_EVERYBODY = frozenset(
    socket.inet_pton(family, text)
    for family, text in ((socket.AF_INET, "224.0.0.1"), (socket.AF_INET6, "ff02::1"), (socket.AF_INET6, "ff01::1"))
)


class Groups:
    """The groups that some socket has joined, by family, as a process's network has them."""

    def __init__(self, context: DumpContext) -> None:
        self._known: dict[tuple[int, int], list[tuple[int, bytes]]] = {}

    def of(self, pid: Pid, family: int) -> list[tuple[int, bytes]]:
        """(index of the interface, address) of each."""
        if (pid, family) not in self._known:
            read = _read_igmp if family == socket.AF_INET else _read_igmp6
            try:
                found = [each for each in read(pid) if each[1] not in _OF_EVERYBODY]
            except FileNotFoundError:
                found = []
            self._known[pid, family] = found
        return self._known[pid, family]


def _read_igmp(pid: Pid) -> list[tuple[int, bytes]]:
    found, index = [], 0
    for line in read_small(f"/proc/{pid}/net/igmp").splitlines()[1:]:
        fields = line.split()
        if not line[0].isspace():
            index = int(fields[0])
        elif fields:
            found.append((index, int(fields[0], 16).to_bytes(4, "little")))
    return found


def _read_igmp6(pid: Pid) -> list[tuple[int, bytes]]:
    lines = (line.split() for line in read_small(f"/proc/{pid}/net/igmp6").splitlines())
    return [(int(fields[0]), bytes.fromhex(fields[2])) for fields in lines if fields]


def dump(file: OpenFile, connection: Socket, opts: m.sk_opts_entry, context: DumpContext) -> None:
    """Add the memberships of a socket to its options."""
    families = [(socket.IPPROTO_IP, socket.AF_INET)]
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET6:
        families.append((socket.IPPROTO_IPV6, socket.AF_INET6))
    for level, family in families:
        for index, address in context.part(Groups).of(file.process.pid, family):
            _dump_membership(connection, level, index, _pack_address(family, address), opts)


def _pack_address(family: int, address: bytes) -> bytes:
    """A ``sockaddr_storage``."""
    gap = 2 if family == socket.AF_INET else 6
    return (struct.pack("H", family) + bytes(gap) + address).ljust(_ADDRESS_SIZE, b"\0")


def _dump_membership(connection: Socket, level: int, index: int, group: bytes, opts: m.sk_opts_entry) -> None:
    question = bytearray(_head.pack(index, group, 0, _MAX_SOURCES) + bytes(_MAX_SOURCES * _ADDRESS_SIZE))
    try:
        answer = connection.getsockopt_in(level, MCAST_MSFILTER, question)
    except OSError:
        return  # it has not joined that one
    mode, count = _head.unpack_from(answer)[2:]
    joined = answer[: 8 + _ADDRESS_SIZE]
    sources = [
        answer[_head.size + at * _ADDRESS_SIZE : _head.size + (at + 1) * _ADDRESS_SIZE]
        for at in range(min(count, _MAX_SOURCES))
    ]
    if mode == _EXCLUDE:
        opts.torpor_option.add(level=level, name=MCAST_JOIN_GROUP, value=joined)
    option = MCAST_BLOCK_SOURCE if mode == _EXCLUDE else MCAST_JOIN_SOURCE_GROUP
    for source in sources:
        opts.torpor_option.add(level=level, name=option, value=joined + source)
