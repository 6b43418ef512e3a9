"""TCP sockets whose connection has ended, completely: they remember who it was with, and what was not read yet.

Kernel view
    State TCP_CLOSE with a peer (SO_PEERNAME).  The receive queue can still be read; a waiting error shows as POLLERR.
Image
    ``inet_sk_entry`` without a peer, shut down, which every reader restores; ``torpor_ended_port`` and its kin, and
    ``tcp_stream`` if bytes are left.  CRIU's images have the peer and a stream, in state 7.
Restore
    Connected in repair mode, what was not read put in, and ended by a reset that we make: the one thing that ends a
    connection without a packet in answer.  The error that this leaves is taken away, unless there was one.
Limits
    Which error waits cannot be told without taking it: ECONNRESET is restored.  Where the same connection has been made
    anew by others the socket is left as shut down, without peer and data.
"""

from __future__ import annotations

import _socket as socket
import os
import select
import struct

from torpor.base import log
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.format import Entry
from torpor.images.store import store_one
from torpor.kernel import packets
from torpor.kernel.sockets import Borrowed, Socket
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import addresses, net_lock, options, tcp_fin, tcp_repair, tcp_stream, urgent
from torpor.objects.files.socket.make import make_socket
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

_RST = 0x04
_FIRST = 0x10000
_WINDOW = 0xFFFF


def dump(file: OpenFile, sk: m.inet_sk_entry, context: DumpContext) -> None:
    """Move the peer to where other readers ignore it, and write what was not read."""
    sk.torpor_ended_addr.extend(sk.dst_addr)
    sk.torpor_ended_port = sk.dst_port
    poller = select.poll()
    poller.register(file.fd, 0)
    if dict(poller.poll(0)).get(file.fd, 0) & select.POLLERR:
        sk.torpor_error = 104
    with Borrowed(file.fd) as connection:
        urgent.check_tcp(file, connection, context)
        length = tcp_repair.n_received(connection)
        try:
            data = tcp_stream.read_received(connection, length, context) if length else b""
        except ConnectionError:
            data = b""  # nothing was there but the error, which is gone by that
    if data:
        stream = m.tcp_stream_entry(
            inq_len=len(data), inq_seq=_FIRST + len(data), outq_len=0, outq_seq=_FIRST, opt_mask=0, snd_wscale=0,
            mss_clamp=536, unsq_len=0,
        )  # fmt: skip
        store_one(context.store, "TCP_STREAM", Entry(stream, data), sk.ino)


def is_ended(sk: m.inet_sk_entry) -> bool:
    """Whether the image is one of an ended connection."""
    return bool(sk.torpor_ended_port) or (sk.state == tcp_repair.CLOSE and bool(sk.dst_port))


def restore(connection: Socket, sk: m.inet_sk_entry, context: RestoreContext, what: str) -> bool:
    """Make it so; False where it cannot be, and the socket is as it was."""
    ended = m.inet_sk_entry()
    ended.CopyFrom(sk)
    data = b""
    if sk.torpor_ended_port:
        ended.dst_port = sk.torpor_ended_port
        del ended.dst_addr[:]
        ended.dst_addr.extend(sk.torpor_ended_addr)
    if context.store.exists(kinds.TCP_STREAM.file_name(sk.ino)):
        stream, payload = tcp_stream.load(sk, context, what)
        data = payload[: stream.inq_len]
    scope = addresses.scope_of(sk, what)
    tcp_repair.begin(connection)
    try:
        connection.bind(addresses.to_python(sk.family, sk.src_addr, sk.src_port, scope))
        tcp_repair.set_sequence(connection, tcp_repair.RECEIVE_QUEUE, _FIRST)
        tcp_repair.set_sequence(connection, tcp_repair.SEND_QUEUE, _FIRST)
        connection.connect(addresses.to_python(sk.family, ended.dst_addr, ended.dst_port, scope))
    except OSError as error:
        log.debug(f"{what}: the connection that has ended exists once more: {error.strerror}")
        tcp_repair.end_quietly(connection, 1)
        return False
    options.widen(connection)
    tcp_repair.fill(connection, tcp_repair.RECEIVE_QUEUE, data)
    connection.setsockopt(tcp_repair.TCP, tcp_repair.REPAIR_QUEUE, tcp_repair.NO_QUEUE)
    if not _reset(connection, ended, len(data), context):
        log.warn(f"{what}: a packet filter drops the reset that ends it (mark 0xC114): it is as if never connected")
        with make_socket(context, sk.family, sk.type, sk.proto, sk.ns_id) as other:
            os.dup2(other.fileno(), connection.fileno(), inheritable=False)
        return False
    tcp_repair.end_quietly(connection, 1)
    if not sk.torpor_error:
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return True


def _reset(connection: Socket, ended: m.inet_sk_entry, length: int, context: RestoreContext) -> bool:
    """Have a reset come; whether it did."""
    ends = net_lock.ends_of(ended)
    way = packets.Way(ends.there, ends.peer_port, ends.here, ends.port)
    window = (0, _WINDOW, _WINDOW, _WINDOW, _FIRST + length)
    connection.setsockopt(tcp_repair.TCP, tcp_repair.REPAIR_WINDOW, struct.pack("5I", *window))
    raw = context.part(Raw).sockets
    packet = packets.tcp(way, _FIRST + length, _FIRST, _RST | packets.ACK, _WINDOW)
    packets.send(raw.of(ended), way, packet, addresses.scope_of(ended, "a TCP connection that has ended"))
    return raw.wait(connection, tcp_repair.CLOSE)


class Raw:
    """What the resets are sent by."""

    def __init__(self, context: RestoreContext) -> None:
        self.sockets = tcp_fin.RawSockets(context)
        context.at(RestoreStage.NAMED, self.sockets.close)
