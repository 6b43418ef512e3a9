"""TCP connections between two sockets of the same tree (--tcp-established).

Kernel view
    TCP_INFO has the state and the options that both sides agreed on; in repair mode (TCP_REPAIR) a socket also tells
    sequence numbers and windows, and both its queues can be read.  A FIN counts as one byte of the sequence.
Image
    ``tcp_stream_entry``, with the bytes received and not read, then those not acknowledged.
Restore
    In repair mode bind(2) and connect(2) send nothing; sequence numbers, options, queues and windows are set.  When all
    connections are there repair mode ends, what was never sent is sent, and what was shut down is shut down again: the
    other end is there to receive it.
Limits
    A connection to anything outside of the tree needs its packets held back until it is restored, which is not done
    yet: refused.  While one is read (some 50 us) its socket is in repair mode, and when the tree is killed they all
    are, or the kernel would say goodbye; were we killed in that instant, they would stay in it.
"""

from __future__ import annotations

import _socket as socket
import fcntl
import os
import struct
from collections.abc import Iterable

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.store import iter_entries, store_one
from torpor.kernel.sockets import Borrowed, Socket
from torpor.objects.files.model import FileDump, FileRestore, OpenFile
from torpor.objects.files.socket import addresses
from torpor.objects.files.socket.options import widen

_TCP = socket.IPPROTO_TCP
_TCP_INFO, _TCP_MAXSEG = 11, 2
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
_ON, _OFF, _OFF_QUIETLY = 1, 0, -1
_NO_QUEUE, _RECEIVE_QUEUE, _SEND_QUEUE = 0, 1, 2
_SIOCINQ, _SIOCOUTQ, _SIOCOUTQNSD = 0x541B, 0x5411, 0x894B
_OPT_TIMESTAMPS, _OPT_SACK, _OPT_WSCALE = 1, 2, 4
_CODE_MAXSEG, _CODE_WINDOW, _CODE_SACK, _CODE_TIMESTAMP = 2, 3, 4, 8
_SO_REUSEADDR = socket.SO_REUSEADDR
_WINDOW_FIELDS = ("snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup")
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 1, 4, 5, 8, 9, 11
CARRIED = (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING)
#: Where we have sent a FIN; where one has come.
_SENT_FIN = (_FIN_WAIT1, _FIN_WAIT2, _LAST_ACK, _CLOSING)
_GOT_FIN = (_CLOSE_WAIT, _LAST_ACK, _CLOSING)
_MAX_QUEUE = 1 << 28
_SMALLEST_PIECE = 1024


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection being dumped, by a duplicate that is kept until the end."""

    file: OpenFile
    sk: m.inet_sk_entry
    fd: OwnedFd


class Connections:
    """The connections of a dump."""

    def __init__(self, session: FileDump) -> None:
        self._session = session
        self._all: list[_Connection] = []
        session.at_end(self._dump)
        session.before_kill(self._silence)

    def add(self, file: OpenFile, sk: m.inet_sk_entry) -> None:
        """Dump it once all are known."""
        self._all.append(_Connection(file, sk, OwnedFd(os.dup(file.fd))))

    def _dump(self) -> None:
        ends = {(_plain(c.sk.src_addr), c.sk.src_port, _plain(c.sk.dst_addr), c.sk.dst_port) for c in self._all}
        for each in self._all:
            sk = each.sk
            if (_plain(sk.dst_addr), sk.dst_port, _plain(sk.src_addr), sk.src_port) not in ends:
                raise each.file.refuse(
                    f"a TCP connection to port {sk.dst_port}, whose other end is outside of the tree",
                    hint="use --tcp-close; connections to others need a network lock, which is not done yet",
                )
        for each in self._all:
            with Borrowed(each.fd.fileno()) as connection:
                entry = _read_in_repair(each.file, connection, each.sk)
            store_one(self._session.store, "TCP_STREAM", entry, each.sk.ino)

    def _silence(self) -> None:
        """Let the sockets vanish without a packet, so that nothing of the connections stays behind."""
        for each in self._all:
            with Borrowed(each.fd.fileno()) as connection:
                connection.setsockopt(_TCP, _REPAIR, _ON)


def _plain(words: Iterable[int]) -> tuple[int, ...]:
    """An address to compare: IPv4 in IPv6's clothes is IPv4."""
    found = tuple(words)
    mapped = (0, 0, socket.htonl(0xFFFF))
    return found[3:] if len(found) == 4 and found[:3] == mapped else found


def _read_in_repair(file: OpenFile, connection: Socket, sk: m.inet_sk_entry) -> Entry[m.Message]:
    reuse = connection.getsockopt(socket.SOL_SOCKET, _SO_REUSEADDR)
    connection.setsockopt(_TCP, _REPAIR, _ON)
    try:
        return _read(file, connection, sk)
    finally:
        connection.setsockopt(_TCP, _REPAIR_QUEUE, _NO_QUEUE)
        connection.setsockopt(_TCP, _REPAIR, _OFF_QUIETLY)
        # Repair mode has its own idea of it, and leaves none behind.
        connection.setsockopt(socket.SOL_SOCKET, _SO_REUSEADDR, reuse)


def _read(file: OpenFile, connection: Socket, sk: m.inet_sk_entry) -> Entry[m.Message]:
    fd = connection.fileno()
    info = connection.getsockopt(_TCP, _TCP_INFO, 104)
    sk.state = info[0]
    stream = m.tcp_stream_entry(opt_mask=info[5], snd_wscale=0)
    stream.mss_clamp = connection.getsockopt(_TCP, _TCP_MAXSEG)
    if info[5] & _OPT_WSCALE:
        stream.snd_wscale, stream.rcv_wscale = info[6] & 0xF, info[6] >> 4
    if info[5] & _OPT_TIMESTAMPS:
        stream.timestamp = connection.getsockopt(_TCP, _TIMESTAMP) & 0xFFFFFFFF
    window = struct.unpack("5I", connection.getsockopt(_TCP, _REPAIR_WINDOW, 20))
    for name, value in zip(_WINDOW_FIELDS, window, strict=True):
        setattr(stream, name, value)
    fin = 1 if sk.state in _SENT_FIN else 0
    stream.inq_len = _ask(fd, _SIOCINQ)
    stream.outq_len = max(_ask(fd, _SIOCOUTQ) - fin, 0)
    stream.unsq_len = max(_ask(fd, _SIOCOUTQNSD) - fin, 0)
    stream.inq_seq, received = _read_queue(file, connection, _RECEIVE_QUEUE, stream.inq_len)
    stream.outq_seq, sent = _read_queue(file, connection, _SEND_QUEUE, stream.outq_len)
    return Entry(stream, received + sent)


def _ask(fd: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, request, bytes(4)), "little")


def _read_queue(file: OpenFile, connection: Socket, queue: int, length: int) -> tuple[int, bytes]:
    connection.setsockopt(_TCP, _REPAIR_QUEUE, queue)
    sequence = connection.getsockopt(_TCP, _QUEUE_SEQ) & 0xFFFFFFFF
    if not length:
        return sequence, b""
    data = connection.recv(length + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if len(data) != length:
        raise file.refuse(f"a queue of {length} bytes of its TCP connection gave {len(data)}", hint="try again")
    return sequence, data


# -- restore --------------------------------------------------------------------------------------------------


def restore(connection: Socket, sk: m.inet_sk_entry, session: FileRestore, what: str) -> None:
    """Make the connection as far as repair mode goes; ``finish`` does the rest when all are made."""
    stream, payload = _load(sk, session, what)
    got_fin, sent_fin = int(sk.state in _GOT_FIN), int(sk.state in _SENT_FIN)
    connection.setsockopt(_TCP, _REPAIR, _ON)
    connection.bind(addresses.to_python(sk.family, sk.src_addr, sk.src_port))
    for queue, after, length in (
        (_RECEIVE_QUEUE, stream.inq_seq - got_fin, stream.inq_len),
        (_SEND_QUEUE, stream.outq_seq - sent_fin, stream.outq_len),
    ):
        connection.setsockopt(_TCP, _REPAIR_QUEUE, queue)
        connection.setsockopt(_TCP, _QUEUE_SEQ, struct.pack("I", (after - length) & 0xFFFFFFFF))
    connection.connect(addresses.to_python(sk.family, sk.dst_addr, sk.dst_port))
    connection.setsockopt(_TCP, _REPAIR_OPTIONS, _pack_options(stream))
    if stream.opt_mask & _OPT_TIMESTAMPS:
        connection.setsockopt(_TCP, _TIMESTAMP, struct.pack("I", stream.timestamp))
    widen(connection)
    n_sent = stream.outq_len - stream.unsq_len
    _fill(connection, _RECEIVE_QUEUE, payload[: stream.inq_len])
    _fill(connection, _SEND_QUEUE, payload[stream.inq_len : stream.inq_len + n_sent])
    connection.setsockopt(_TCP, _REPAIR_QUEUE, _NO_QUEUE)
    if stream.HasField("snd_wnd"):
        window = [getattr(stream, name) for name in _WINDOW_FIELDS]
        window[3] += got_fin
        window[4] = (window[4] - got_fin) & 0xFFFFFFFF
        connection.setsockopt(_TCP, _REPAIR_WINDOW, struct.pack("5I", *window))


def _load(sk: m.inet_sk_entry, session: FileRestore, what: str) -> tuple[m.tcp_stream_entry, bytes]:
    for item in iter_entries(session.store, "TCP_STREAM", sk.ino):
        stream = item.message
        assert isinstance(stream, m.tcp_stream_entry)
        if sk.state not in CARRIED:
            raise RestoreError(f"{what}: a TCP connection in state {sk.state} cannot be restored")
        if stream.unsq_len > stream.outq_len or max(stream.outq_len, stream.inq_len) > _MAX_QUEUE:
            raise ImageError(f"{what}: impossible queues of {stream.inq_len} and {stream.outq_len} bytes")
        return stream, item.payload
    raise ImageError(f"{what}: its TCP stream's image is empty")


def _pack_options(stream: m.tcp_stream_entry) -> bytes:
    found = []
    if stream.opt_mask & _OPT_SACK:
        found.append((_CODE_SACK, 0))
    if stream.opt_mask & _OPT_WSCALE:
        found.append((_CODE_WINDOW, stream.snd_wscale | stream.rcv_wscale << 16))
    if stream.opt_mask & _OPT_TIMESTAMPS:
        found.append((_CODE_TIMESTAMP, 0))
    found.append((_CODE_MAXSEG, stream.mss_clamp))
    return b"".join(struct.pack("II", code, value & 0xFFFFFFFF) for code, value in found)


def _fill(connection: Socket, queue: int, data: bytes) -> None:
    if data:
        connection.setsockopt(_TCP, _REPAIR_QUEUE, queue)
        _send(connection, data)


def _send(connection: Socket, data: bytes) -> None:
    """Send all, in pieces as large as the kernel finds memory for in one place."""
    at, piece = 0, len(data)
    while at < len(data):
        try:
            at += connection.send(data[at : at + piece], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            piece //= 2
            if piece < _SMALLEST_PIECE:
                raise


def end_repair(connection: Socket) -> None:
    """Let the connection live."""
    connection.setsockopt(_TCP, _REPAIR, _OFF)


def finish(connection: Socket, sk: m.inet_sk_entry, session: FileRestore, what: str) -> None:
    """Send what was never sent, and shut down what was; for when no connection is in repair mode any more."""
    stream, payload = _load(sk, session, what)
    unsent = payload[len(payload) - stream.unsq_len :] if stream.unsq_len else b""
    try:
        _send(connection, unsent)
        if sk.state in _SENT_FIN:
            connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise RestoreError(f"{what}: its TCP connection cannot go on: {error.strerror}") from error
