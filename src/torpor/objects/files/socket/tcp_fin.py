"""FINs and resets of peers: what a half-closed connection has got is got once more, made by us.

Kernel view
    No call makes a socket have received a FIN, or have its own acknowledged: only a packet does.  One from the peer's
    address that we send to ourselves (``kernel.packets``), marked so that the network lock lets it pass, does as well.
Image
    None of its own: the socket's state, and the sequence numbers of ``tcp_stream_entry``.
Restore
    Of a connection to the outside.  Where both ends are restored each does its own shutdown(2).
Limits
    Where the tree's own packet filter drops what we make, a socket that has got a FIN is shut down for reading instead:
    its owner reads the same, and only the state's name differs.
"""

from __future__ import annotations

import _socket as socket
import select

from torpor.base import log
from torpor.images import messages as m
from torpor.kernel import packets
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket import addresses, net_lock, tcp_repair
from torpor.objects.files.socket.make import make_socket
from torpor.objects.session import RestoreContext

_PATIENCE_MS, _IMPATIENCE_MS = 300, 10
_NEEDED = (tcp_repair.CLOSE_WAIT, tcp_repair.LAST_ACK, tcp_repair.CLOSING, tcp_repair.FIN_WAIT2, tcp_repair.CLOSE)


def is_needed(sk: m.inet_sk_entry) -> bool:
    """Whether a packet must be made for it."""
    return sk.state in _NEEDED


class RawSockets:
    """What packets are sent by, one for each network namespace and family."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._known: dict[tuple[int, int], Socket] = {}
        #: For how long it is worth waiting that a packet arrives, in milliseconds.
        self._patience_ms = _PATIENCE_MS

    def wait(self, connection: Socket, *states: int) -> bool:
        """Wait until it is in one of *states*; False if our packets do not arrive.

        The loopback interface delivers at once, as a rule before the packet's send(2) has returned.
        """
        poller = select.poll()
        poller.register(connection, 0)
        for _ in range(self._patience_ms):
            if tcp_repair.state(connection) in states:
                return True
            poller.poll(1)
        self._patience_ms = _IMPATIENCE_MS
        return False

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
            raw = make_socket(self._context, family, socket.SOCK_RAW, packets.RAW, ns_id)
            packets.prepare(raw, net_lock.MARK)
            self._known[key] = raw
        return self._known[key]

    def close(self) -> None:
        """Close all raw sockets; one that is asked for later is made anew."""
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
        # If that does not arrive, the FIN is sent again, and the peer acknowledges it once more.
        raw.wait(connection, tcp_repair.FIN_WAIT2)


def receive(connection: Socket, sk: m.inet_sk_entry, stream: m.tcp_stream_entry, raw: RawSockets) -> None:
    """Have the peer's FIN come."""
    fin = int(sk.state in tcp_repair.SENT_FIN)
    acknowledged = stream.outq_seq - fin - stream.outq_len
    _send(sk, raw, stream, stream.inq_seq - 1, acknowledged, packets.ACK | packets.FIN)
    states = (tcp_repair.CLOSE_WAIT, tcp_repair.LAST_ACK, tcp_repair.CLOSING, tcp_repair.CLOSE)
    if not raw.wait(connection, *states):
        log.warn(f"a TCP connection to port {sk.dst_port}: a packet filter drops its peer's FIN (mark 0xC114)")
        connection.shutdown(socket.SHUT_RD)


def _send(sk: m.inet_sk_entry, raw: RawSockets, stream: m.tcp_stream_entry, seq: int, ack: int, flags: int) -> None:
    ends = net_lock.ends_of(sk)
    way = packets.Way(ends.there, ends.peer_port, ends.here, ends.port)
    window = stream.snd_wnd >> stream.snd_wscale
    scope = addresses.scope_of(sk, f"a TCP connection to port {sk.dst_port}")
    packets.send(raw.of(sk), way, packets.tcp(way, seq, ack, flags, window), scope)
