"""Repair mode (TCP_REPAIR): in it a TCP socket tells and takes its sequence numbers, queues, options and windows.

While a socket is in it, neither bind(2), connect(2), shutdown(2) of a filled queue nor close(2) send anything; but its
owner's send(2) and recv(2) fail.  A task must never run with one of its sockets in repair mode.
"""

from __future__ import annotations

import _socket as socket
import errno
import fcntl
import struct

from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.sockios import SIOCINQ, SIOCOUTQ, SIOCOUTQNSD
from torpor.tracee import caretaker

TCP = socket.IPPROTO_TCP
INFO, MAXSEG, CORK, ULP = 11, 2, 3, 31
REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
ON, OFF, OFF_QUIETLY = 1, 0, -1
_NO_MODE = 7
NO_QUEUE, RECEIVE_QUEUE, SEND_QUEUE = 0, 1, 2
_SMALLEST_PIECE = 1024

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT = range(1, 7)
CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = range(7, 12)
#: Where we have sent a FIN; where one has come.
SENT_FIN = (FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING)
GOT_FIN = (CLOSE_WAIT, LAST_ACK, CLOSING)


def info(connection: Socket) -> bytes:
    """``struct tcp_info``: state at 0, options at 5, window scales at 6."""
    return connection.getsockopt(TCP, INFO, 104)


def state(connection: Socket) -> int:
    """One of the states above."""
    return info(connection)[0]


def upper_layer(connection: Socket) -> str:
    """What has been put between the socket and TCP (``tls``); nothing, as a rule."""
    try:
        return connection.getsockopt(TCP, ULP, 16).split(b"\0")[0].decode()
    except OSError:
        return ""  # a kernel without


def n_received(connection: Socket) -> int:
    """Bytes received and not read; a FIN does not count."""
    return _ask(connection, SIOCINQ)


def n_unacknowledged(connection: Socket) -> int:
    """Bytes written and not acknowledged; a FIN counts as one."""
    return _ask(connection, SIOCOUTQ)


def n_unsent(connection: Socket) -> int:
    """Those of them that were never sent; a FIN counts as one."""
    return _ask(connection, SIOCOUTQNSD)


def _ask(connection: Socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(connection.fileno(), request, bytes(4)), "little")


def sequence_of(connection: Socket, queue: int) -> int:
    """The sequence number behind the last byte of a queue, which is chosen by this."""
    connection.setsockopt(TCP, REPAIR_QUEUE, queue)
    return connection.getsockopt(TCP, QUEUE_SEQ) & 0xFFFFFFFF


def set_sequence(connection: Socket, queue: int, sequence: int) -> None:
    """Where a queue of a closed socket begins."""
    connection.setsockopt(TCP, REPAIR_QUEUE, queue)
    connection.setsockopt(TCP, QUEUE_SEQ, struct.pack("I", sequence & 0xFFFFFFFF))


def fill(connection: Socket, queue: int, data: bytes) -> None:
    """Put bytes into a queue, as received or as sent already."""
    if data:
        connection.setsockopt(TCP, REPAIR_QUEUE, queue)
        send_all(connection, data)


def send_all(connection: Socket, data: bytes) -> None:
    """Send all, in pieces as large as the kernel finds memory for in one place."""
    at, piece = 0, len(data)
    while at < len(data):
        try:
            at += connection.send(data[at : at + piece], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            piece //= 2
            if piece < _SMALLEST_PIECE:
                raise


def may_begin(connection: Socket) -> bool:
    """Whether we are allowed to; nothing becomes of it: the kernel looks at the right first, and has no such mode."""
    try:
        connection.setsockopt(TCP, REPAIR, _NO_MODE)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def begin(connection: Socket) -> None:
    """Put the socket into repair mode.  OSError EPERM without CAP_NET_ADMIN, or for a listener."""
    connection.setsockopt(TCP, REPAIR, ON)


def end(connection: Socket) -> None:
    """End repair mode; the kernel asks the peer for an acknowledgement by a packet."""
    connection.setsockopt(TCP, REPAIR, OFF)


def end_quietly(connection: Socket, reuse: int) -> None:
    """Out of it without a packet.  *reuse* is SO_REUSEADDR, of which repair mode leaves nothing."""
    connection.setsockopt(TCP, REPAIR, OFF_QUIETLY)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)


def undo_steps(fd: int, reuse: int) -> list[caretaker.Step]:
    """What a caretaker does to get a socket out of repair mode; harmless to one that is not in it."""
    return [
        caretaker.option(fd, TCP, REPAIR, OFF_QUIETLY),
        caretaker.option(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse),
    ]


def wake_step(connection: Socket, reuse: int) -> caretaker.Step:
    """What makes one go on at once that was taken out of repair mode while its packets were held back.

    By itself it would wait for a timer, for up to a second.  That mode ended once more is another packet that asks for
    an acknowledgement; a cork that is pulled sends what is unsent (one that is in is put back).
    """
    settings = [(TCP, REPAIR, OFF), (socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse), (TCP, CORK, 0)]
    if connection.getsockopt(TCP, CORK):
        settings.append((TCP, CORK, 1))
    return caretaker.options(connection.fileno(), settings)
