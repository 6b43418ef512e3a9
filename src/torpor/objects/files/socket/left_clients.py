"""Clients whose connection a listener has not accepted when its tree ends: each is told that it is over.

Kernel view
    Rows of sock_diag(7) of the listener's port that have no inode: connections that nobody has accepted.
Image
    ``inet_sk_entry.torpor_left``.
Restore
    When packets come in again, a segment that does not fit its connection makes the client's kernel answer (RFC 9293,
    3.10.7.4), and that answer is met by a reset, for here nobody has the connection.
Limits
    Only where a network namespace was locked as a whole: elsewhere the kernel says so when the listener ends, and the
    client hears it.  Not of MPTCP; at most 4,096 of a listener.
"""

from __future__ import annotations

import _socket as socket

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import messages as m
from torpor.kernel import packets
from torpor.kernel.sock_diag import read_unaccepted
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import addresses, net_lock
from torpor.objects.files.socket.make import make_socket
from torpor.objects.session import RestoreContext, RestoreStage

_MAX = 4096
#: One of two sequence numbers so far apart fits no window.
_SEQS = (0, 1 << 31)


def dump(sk: m.inet_sk_entry) -> None:
    """Fill in who is left by the listener *sk*; in its network namespace."""
    families = (socket.AF_INET, socket.AF_INET6) if sk.family == socket.AF_INET6 else (socket.AF_INET,)
    own = addresses.plain_bytes(sk.src_addr)
    for family in families:
        try:
            rows = read_unaccepted(family, sk.src_port)
        except (KernelError, OSError) as error:  # a kernel without
            log.debug(f"nobody can tell whose connections wait at port {sk.src_port}: {error}")
            return
        for here, port, there, peer_port in rows[: _MAX - len(sk.torpor_left)]:
            plain = _plain(here)
            if not any(own) or own == plain:
                sk.torpor_left.append(_pack(plain, port) + _pack(_plain(there), peer_port))


def restore(sk: m.inet_sk_entry, context: RestoreContext, what: str) -> None:
    """Tell them when all is there and packets come in."""
    ways = [way for way in map(way_of, sk.torpor_left[:_MAX]) if way is not None and way.source_port == sk.src_port]
    if ways:
        Told(context, sk.ns_id, ways, what)


def _plain(address: bytes) -> bytes:
    return address.removeprefix(addresses.MAPPED) if len(address) == 16 else address


def _pack(address: bytes, port: int) -> bytes:
    return address + port.to_bytes(2, "big")


def _family(way: packets.Way) -> int:
    return socket.AF_INET if len(way.source) == 4 else socket.AF_INET6


def way_of(packed: bytes) -> packets.Way | None:
    """From us to the client; None for what a stranger has made up."""
    if len(packed) not in (12, 36):
        return None
    half = len(packed) // 2
    here, there = packed[:half], packed[half:]
    return packets.Way(here[:-2], int.from_bytes(here[-2:], "big"), there[:-2], int.from_bytes(there[-2:], "big"))


class Told:
    """The clients of one listener."""

    def __init__(self, context: RestoreContext, network: int, ways: list[packets.Way], what: str) -> None:
        self._ways, self._what, self._is_up = ways, what, False
        self._wires = {
            family: make_socket(context, family, socket.SOCK_RAW, packets.RAW, network)
            for family in set(map(_family, ways))
        }
        context.at(RestoreStage.UNLOCKED, self._come_up)
        context.at(RestoreStage.CLOSED, self._end)

    def _come_up(self) -> None:
        self._is_up = True

    def _end(self) -> None:
        try:
            if self._is_up:
                n_told = sum(tell(self._wires[_family(way)], way) for way in self._ways)
                log.info(f"{self._what}: {n_told} clients were told that their connections are gone, not accepted")
        finally:
            for wire in self._wires.values():
                wire.close()


def tell(wire: Socket, way: packets.Way) -> bool:
    """Have the client answer, by a raw socket; whether it could be told.

    Nothing is said in the name of an address that is not one of ours.
    """
    try:
        wire.bind((socket.inet_ntop(_family(way), way.source), 0))
        packets.prepare(wire, net_lock.MARK)
        for seq in _SEQS:
            packets.send(wire, way, packets.tcp(way, seq, 0, packets.ACK, 0))
    except OSError as error:
        log.debug(f"a client is not told: {error}")
        return False
    return True
