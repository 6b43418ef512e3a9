"""FINs and resets of peers: what a half-closed connection has got is got once more, made by us.

Kernel view
    No call makes a socket have received a FIN, or have its own acknowledged: only a packet does.  One from the peer's
    address that we send to ourselves (``kernel.packets``), marked so that the network lock lets it pass, does as well.
Restore
    Of a connection to the outside.  Where both ends are restored each does its own shutdown(2).
"""

from __future__ import annotations

import _socket as socket
import select

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel import packets
from torpor.kernel.sockets import Socket
from torpor.objects.files.model import FileRestore
from torpor.objects.files.socket import net_lock, tcp_repair
from torpor.objects.files.socket.make import make_socket

_PATIENCE_MS = 2000
_NEEDED = (tcp_repair.CLOSE_WAIT, tcp_repair.LAST_ACK, tcp_repair.CLOSING, tcp_repair.FIN_WAIT2, tcp_repair.CLOSE)


def is_needed(sk: m.inet_sk_entry) -> bool:
    """Whether a packet must be made for it."""
    return sk.state in _NEEDED


class RawSockets:
    """What packets are sent by, one for each network namespace and family."""

    def __init__(self, session: FileRestore) -> None:
        self._session = session
        self._known: dict[tuple[int, int], Socket] = {}

    def prepare(self, sk: m.inet_sk_entry) -> None:
        """Make the one for a socket like *sk*, while we are in its namespace."""
        self.of(sk)

    def of(self, sk: m.inet_sk_entry) -> Socket:
        """The one for *sk*."""
        return self.get(len(net_lock.ends_of(sk).here), sk.ns_id)

    def get(self, n_bytes: int, ns_id: int) -> Socket:
        """The one for addresses of that length in the namespace that the images number *ns_id*."""
        key = (ns_id, n_bytes)
        if key not in self._known:
            family = socket.AF_INET if n_bytes == 4 else socket.AF_INET6
            raw = make_socket(self._session, family, socket.SOCK_RAW, packets.RAW, ns_id)
            packets.prepare(raw, net_lock.MARK)
            self._known[key] = raw
        return self._known[key]

    def close(self) -> None:
        """Close them."""
        for raw in self._known.values():
            raw.close()
        self._known.clear()


def before_life(connection: Socket, sk: m.inet_sk_entry, stream: m.tcp_stream_entry, raw: RawSockets) -> None:
    """What must have come while the connection is in repair mode still."""
    if sk.state in (tcp_repair.CLOSE_WAIT, tcp_repair.LAST_ACK):
        receive(connection, sk, stream, raw)
    elif sk.state == tcp_repair.FIN_WAIT2:
        # With that queue chosen the FIN counts as sent.
        connection.setsockopt(tcp_repair.TCP, tcp_repair.REPAIR_QUEUE, tcp_repair.SEND_QUEUE)
        connection.shutdown(socket.SHUT_WR)
        connection.setsockopt(tcp_repair.TCP, tcp_repair.REPAIR_QUEUE, tcp_repair.NO_QUEUE)
        _send(sk, raw, stream, stream.inq_seq, stream.outq_seq, packets.ACK)
        _wait(connection, sk, select.POLLHUP | select.POLLRDHUP, tcp_repair.FIN_WAIT2)


def receive(connection: Socket, sk: m.inet_sk_entry, stream: m.tcp_stream_entry, raw: RawSockets) -> None:
    """Have the peer's FIN come."""
    fin = int(sk.state in tcp_repair.SENT_FIN)
    acknowledged = stream.outq_seq - fin - stream.outq_len
    _send(sk, raw, stream, stream.inq_seq - 1, acknowledged, packets.ACK | packets.FIN)
    states = (tcp_repair.CLOSE_WAIT, tcp_repair.LAST_ACK, tcp_repair.CLOSING, tcp_repair.CLOSE)
    _wait(connection, sk, select.POLLRDHUP, *states)


def _send(sk: m.inet_sk_entry, raw: RawSockets, stream: m.tcp_stream_entry, seq: int, ack: int, flags: int) -> None:
    ends = net_lock.ends_of(sk)
    way = packets.Way(ends.there, ends.peer_port, ends.here, ends.port)
    window = stream.snd_wnd >> stream.snd_wscale
    packets.send(raw.of(sk), way, packets.tcp(way, seq, ack, flags, window))


def _wait(connection: Socket, sk: m.inet_sk_entry, events: int, *states: int) -> None:
    """The loopback interface delivers at once, as a rule before the packet's send(2) has returned."""
    poller = select.poll()
    poller.register(connection, events)
    for _ in range(_PATIENCE_MS):
        if tcp_repair.state(connection) in states:
            return
        poller.poll(1)
    raise RestoreError(
        f"a TCP connection to port {sk.dst_port} does not get into state {sk.state}",
        hint="packets of its peer made by us, with mark 0xC114, must not be filtered",
    )
