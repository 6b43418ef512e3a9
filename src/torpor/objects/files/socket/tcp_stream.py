"""TCP connections (--tcp-established).

Kernel view
    TCP_INFO has the state and the options that both sides agreed on; in repair mode (``tcp_repair``) a socket also
    tells sequence numbers and windows, and its send queue can be read.  A FIN counts as one byte of the sequence.
Image
    ``tcp_stream_entry``, with the bytes received and not read, then those not acknowledged.
Restore
    In repair mode bind(2) and connect(2) send nothing; sequence numbers, options, queues and windows are set.  Just
    before the tree goes on, and behind the network lock still, repair mode ends, what was never sent is sent, and what
    was shut down is shut down again (``tcp_fin``): the kernel keeps what the lock drops.  Once that is gone a packet
    makes up for those that were lost.  What is left here of the same connection, and has no process any more at
    either end, is ended first where both ends are this host's.
Limits
    Connections whose other end is outside of the tree need the network lock (``net_lock``).  Those inside do without:
    the tree is frozen, so that they come to rest; a pair that was caught with bytes on their way is read again.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.store import iter_entries, store_one
from torpor.kernel.rlimits import raise_descriptor_limit
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.uapi.socket import SO_PEEK_OFF
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import (
    addresses,
    net_lock,
    options,
    shutdown,
    tcp_fin,
    tcp_repair,
    urgent,
    waiting_errors,
)
from torpor.objects.files.socket.tcp_repair import RECEIVE_QUEUE, SEND_QUEUE, SENT_FIN
from torpor.objects.outside import Lasting
from torpor.objects.session import DumpContext, DumpStage, RestoreContext, RestoreStage
from torpor.tracee import caretaker

_TCP = tcp_repair.TCP
_OPT_TIMESTAMPS, _OPT_SACK, _OPT_WSCALE = 1, 2, 4
_CODE_MAXSEG, _CODE_WINDOW, _CODE_SACK, _CODE_TIMESTAMP = 2, 3, 4, 8
_WINDOW_FIELDS = ("snd_wl1", "snd_wnd", "max_window", "rcv_wnd", "rcv_wup")
CARRIED = (tcp_repair.ESTABLISHED, tcp_repair.SYN_SENT, tcp_repair.CLOSE_WAIT, *SENT_FIN)
_MAX_QUEUE = 1 << 28
#: TCP_MIN_MSS, TCP_MSS_DEFAULT, and MAX_TCP_WINDOW, which is the most that TCP_MAXSEG takes.
_LEAST_SEGMENT, _DEFAULT_SEGMENT, _MOST_SEGMENT = 88, 536, 32767
_N_LOOKS = 50
_PATIENCE_S, _PAUSE_S = 1.0, 0.01


@dataclass(slots=True)
class _Connection:
    """A connection being dumped, by a duplicate that is kept until the end."""

    file: OpenFile
    sk: m.inet_sk_entry
    fd: OwnedFd
    ends: net_lock.Ends
    reuse: int
    stream: m.tcp_stream_entry
    data: bytes = b""
    #: The sequence number that the peer has acknowledged everything before.
    acknowledged: int = 0


class Connections(Lasting):
    """The connections of a dump."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._all: list[_Connection] = []
        raise_descriptor_limit()  # each connection takes some
        context.at(DumpStage.WRITTEN, self._dump)
        context.outside.add(self)

    def add(self, file: OpenFile, sk: m.inet_sk_entry) -> None:
        """Dump it once all are known."""
        fd = OwnedFd(os.dup(file.fd))
        with Borrowed(fd.fileno()) as connection:
            reuse = connection.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        self._all.append(_Connection(file, sk, fd, net_lock.ends_of(sk), reuse, m.tcp_stream_entry()))

    def _dump(self) -> None:
        known = {(each.sk.ns_id, each.ends): each for each in self._all}
        pairs = []
        outside: dict[int, list[net_lock.Ends]] = {}
        for each in self._all:
            peer = known.get((each.sk.ns_id, each.ends.reversed))
            if peer is None:
                outside.setdefault(each.sk.ns_id, []).append(each.ends)
            else:
                pairs.append((each, peer))
        lock = self._context.part(net_lock.DumpLock)
        lock.carried = outside
        lock.lock_connections()
        keeper = self._context.outside.caretaker
        keys = keeper.add([s for each in self._all for s in tcp_repair.undo_steps(each.fd.fileno(), each.reuse)])
        with keeper.ahead():
            self._read(self._all)
            self._read_again(pairs)
        keeper.drop(keys)
        for each in self._all:
            store_one(self._context.store, "TCP_STREAM", Entry(each.stream, each.data), each.sk.ino)

    def _read(self, connections: Sequence[_Connection]) -> None:
        for each in connections:
            with Borrowed(each.fd.fileno()) as connection:
                events = urgent.check_tcp(each.file, connection, self._context)
                waiting_errors.tell(each.file, events, self._context)
                for _ in range(_N_LOOKS):
                    if _read(each, connection, self._context):
                        break
                else:
                    raise each.file.refuse("the queues of its TCP connection do not come to rest", hint="try again")

    def _read_again(self, pairs: list[tuple[_Connection, _Connection]]) -> None:
        """Both ends were not read in one instant: what one saw acknowledged, the other must have seen come."""
        for _ in range(_N_LOOKS):
            torn = [
                receiver
                for sender, receiver in pairs
                if (receiver.stream.inq_seq - sender.acknowledged) & 0xFFFFFFFF >= 1 << 31
            ]
            if not torn:
                return
            self._read(torn)
        raise torn[0].file.refuse("its TCP connection does not come to rest", hint="try again")

    def last_steps(self) -> list[caretaker.Step]:
        """Steps of a caretaker that put the sockets into repair mode: closed in it, they send nothing."""
        return [caretaker.option(each.fd.fileno(), _TCP, tcp_repair.REPAIR, tcp_repair.ON) for each in self._all]

    def settle(self) -> None:
        """The tasks are dead: let their sockets vanish without a packet, so that nothing of the connections stays."""
        for each in self._all:
            with Borrowed(each.fd.fileno()) as connection:
                tcp_repair.begin(connection)
            each.fd.close()


def _read(each: _Connection, connection: Socket, context: DumpContext) -> bool:
    """Whether nothing came or was acknowledged meanwhile: a frozen peer's probe of a closed window brings a byte.

    In repair mode is read what must be, and as little else as can be: were we killed in it, it shows.
    """
    sk, stream = each.sk, m.tcp_stream_entry()
    info = tcp_repair.info(connection)
    sk.state = info[0]
    sk.ClearField("shutdown")
    if sk.state not in tcp_repair.GOT_FIN and shutdown.poll_bits(connection.fileno()) & shutdown.RECEIVE:
        sk.shutdown = shutdown.RECEIVE  # not by the peer
    fin = 1 if sk.state in SENT_FIN else 0
    stream.inq_len = tcp_repair.n_received(connection)
    n_unacknowledged = tcp_repair.n_unacknowledged(connection)
    stream.outq_len = max(n_unacknowledged - fin, 0)
    stream.unsq_len = max(tcp_repair.n_unsent(connection) - fin, 0)
    stream.opt_mask, stream.snd_wscale = info[5], 0
    if info[5] & _OPT_WSCALE:
        stream.snd_wscale, stream.rcv_wscale = info[6] & 0xF, info[6] >> 4
    if info[5] & _OPT_TIMESTAMPS:
        stream.timestamp = connection.getsockopt(_TCP, tcp_repair.TIMESTAMP) & 0xFFFFFFFF
    sent = received = b""
    tcp_repair.begin(connection)
    try:
        stream.mss_clamp = connection.getsockopt(_TCP, tcp_repair.MAXSEG)
        window = connection.getsockopt(_TCP, tcp_repair.REPAIR_WINDOW, 20)
        stream.inq_seq = tcp_repair.sequence_of(connection, RECEIVE_QUEUE)
        stream.outq_seq = tcp_repair.sequence_of(connection, SEND_QUEUE)
        if stream.outq_len:
            sent = _peek(connection, stream.outq_len)
        connection.setsockopt(_TCP, tcp_repair.REPAIR_QUEUE, tcp_repair.NO_QUEUE)
    finally:
        tcp_repair.end_quietly(connection, each.reuse)
    for name, value in zip(_WINDOW_FIELDS, struct.unpack("5I", window), strict=True):
        setattr(stream, name, value)
    if stream.inq_len:
        received = read_received(connection, stream.inq_len, context)
    if (len(received), len(sent)) != (stream.inq_len, stream.outq_len):
        return False
    each.stream, each.data, each.acknowledged = stream, received + sent, stream.outq_seq - n_unacknowledged
    return True


def _peek(connection: Socket, length: int) -> bytes:
    return connection.recv(length + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def read_received(connection: Socket, length: int, context: DumpContext) -> bytes:
    """What waits to be read, whatever place the socket's SO_PEEK_OFF says."""
    try:
        before = connection.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
    except OSError:
        before = -1  # TCP has it since 6.9
    if before < 0:
        return _peek(connection, length)
    keeper = context.outside.caretaker
    keys = keeper.add([caretaker.option(connection.fileno(), socket.SOL_SOCKET, SO_PEEK_OFF, before)])
    try:
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
        return _peek(connection, length)
    finally:
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, before)
        keeper.drop(keys)


# -- restore --------------------------------------------------------------------------------------------------


def restore(connection: Socket, sk: m.inet_sk_entry, context: RestoreContext, what: str) -> None:
    """Make the connection as far as repair mode goes; the rest when the network is unlocked."""
    stream, payload = load(sk, context, what)
    if sk.state not in (*CARRIED, tcp_repair.CLOSE):
        raise RestoreError(f"{what}: a TCP connection in state {sk.state} cannot be restored")
    got_fin, sent_fin = int(sk.state in tcp_repair.GOT_FIN), int(sk.state in SENT_FIN)
    tcp_repair.begin(connection)
    scope = addresses.scope_of(sk, what)
    connection.bind(addresses.to_python(sk.family, sk.src_addr, sk.src_port, scope))
    tcp_repair.set_sequence(connection, RECEIVE_QUEUE, stream.inq_seq - got_fin - stream.inq_len)
    if sk.state == tcp_repair.SYN_SENT:
        # The SYN counts as one, and is sent when connect(2) is called without repair mode.
        tcp_repair.set_sequence(connection, SEND_QUEUE, stream.outq_seq - 1)
        context.part(Reborn).add(connection, sk, stream, b"", what)
        return
    tcp_repair.set_sequence(connection, SEND_QUEUE, stream.outq_seq - sent_fin - stream.outq_len)
    _choose_segments(connection, stream)
    _connect_again(connection, sk, addresses.to_python(sk.family, sk.dst_addr, sk.dst_port, scope), context)
    connection.setsockopt(_TCP, tcp_repair.MAXSEG, 0)
    connection.setsockopt(_TCP, tcp_repair.REPAIR_OPTIONS, _pack_options(stream))
    if stream.opt_mask & _OPT_TIMESTAMPS:
        connection.setsockopt(_TCP, tcp_repair.TIMESTAMP, struct.pack("I", stream.timestamp))
    options.widen(connection)
    n_sent = stream.outq_len - stream.unsq_len
    tcp_repair.fill(connection, RECEIVE_QUEUE, payload[: stream.inq_len])
    tcp_repair.fill(connection, SEND_QUEUE, payload[stream.inq_len : stream.inq_len + n_sent])
    connection.setsockopt(_TCP, tcp_repair.REPAIR_QUEUE, tcp_repair.NO_QUEUE)
    if stream.HasField("snd_wnd"):
        window = [getattr(stream, name) for name in _WINDOW_FIELDS]
        window[3] += got_fin
        window[4] = (window[4] - got_fin) & 0xFFFFFFFF
        connection.setsockopt(_TCP, tcp_repair.REPAIR_WINDOW, struct.pack("5I", *window))
    context.part(Reborn).add(connection, sk, stream, payload[len(payload) - stream.unsq_len :], what)


def _choose_segments(connection: Socket, stream: m.tcp_stream_entry) -> None:
    """Their size is computed once, in connect(2): 524 bytes for ever, if nothing better is known by then.

    Not more than half of what the peer ever offered (tcp_bound_to_half_wnd).
    """
    offered = stream.max_window if stream.HasField("snd_wnd") else 0
    half = offered >> 1 if offered > _DEFAULT_SEGMENT else offered
    size = min(stream.mss_clamp, half or _MOST_SEGMENT, _MOST_SEGMENT)
    if size >= _LEAST_SEGMENT:
        connection.setsockopt(_TCP, tcp_repair.MAXSEG, size)


def _connect_again(
    connection: Socket, sk: m.inet_sk_entry, address: tuple[str | int, ...], context: RestoreContext
) -> None:
    """The same connection may be there still, for an instant, if a tree that was left stopped has just been killed.

    It may be for a minute, if all have been killed that would have seen to it.  Between two ends of this host such a
    one is ended; the peer of another would be told of that, and end ours with it.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return connection.connect(address)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE) or time.monotonic() > deadline:
                raise
        if not (_is_ours(sk.family, address) and _end_orphan(sk, context)):
            time.sleep(_PAUSE_S)


def _is_ours(family: int, address: tuple[str | int, ...]) -> bool:
    with Socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True


def _end_orphan(sk: m.inet_sk_entry, context: RestoreContext) -> bool:
    from torpor.kernel import sock_diag

    here, there = [(struct.pack(f"={len(words)}I", *words), port) for words, port in (
        (sk.src_addr, sk.src_port), (sk.dst_addr, sk.dst_port)
    )]  # fmt: skip
    return sock_diag.destroy_orphan(sk.family, here, there, ours=context.part(Reborn).peer(sk))


def load(sk: m.inet_sk_entry, context: RestoreContext, what: str) -> tuple[m.tcp_stream_entry, bytes]:
    """The image of its stream, and the queues; ImageError for an impossible one."""
    for item in iter_entries(context.store, "TCP_STREAM", sk.ino):
        stream = item.message
        assert isinstance(stream, m.tcp_stream_entry)
        if stream.unsq_len > stream.outq_len or max(stream.outq_len, stream.inq_len) > _MAX_QUEUE:
            raise ImageError(f"{what}: impossible queues of {stream.inq_len} and {stream.outq_len} bytes")
        return stream, item.payload[: stream.inq_len + stream.outq_len]
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


@dataclass(frozen=True, slots=True)
class _Reborn:
    """A connection in repair mode, by a duplicate of ours, and what is to be sent on it."""

    fd: OwnedFd
    sk: m.inet_sk_entry
    stream: m.tcp_stream_entry
    unsent: bytes
    what: str

    @property
    def wake_step(self) -> caretaker.Step:
        """What makes up for packets that were dropped; one that was being made is asked for by the same SYN."""
        sk = self.sk
        if sk.state == tcp_repair.SYN_SENT:
            # Not behind the lock: what it drops of this is not sent again for a second.
            address = addresses.to_python(sk.family, sk.dst_addr, sk.dst_port, addresses.scope_of(sk, self.what))
            return caretaker.connect(self.fd.fileno(), sk.family, address)
        with Borrowed(self.fd.fileno()) as connection:
            return tcp_repair.wake_step(connection, int(sk.opts.reuseaddr))


class Reborn:
    """The connections of a restore, until they live."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._all: list[_Reborn] = []
        self._raw = tcp_fin.RawSockets(context)
        entries = context.files.entries.values()
        self._ends = {(entry.isk.ns_id, net_lock.ends_of(entry.isk)) for entry in entries if is_stream(entry)}
        context.at(RestoreStage.CONNECTED, self._live)
        context.at(RestoreStage.UNLOCKED, self._wake)
        context.at(RestoreStage.CLOSED, self._silence)
        context.promised.append(self)

    def add(
        self, connection: Socket, sk: m.inet_sk_entry, stream: m.tcp_stream_entry, unsent: bytes, what: str
    ) -> None:
        """Let it live later."""
        self._all.append(_Reborn(OwnedFd(os.dup(connection.fileno())), sk, stream, unsent, what))
        if tcp_fin.is_needed(sk):
            self._raw.prepare(sk)

    def _has_peer(self, sk: m.inet_sk_entry) -> bool:
        """Whether the other end is restored as well: it says itself what it has to say."""
        return (sk.ns_id, net_lock.ends_of(sk).reversed) in self._ends

    def peer(self, sk: m.inet_sk_entry) -> int:
        """The inode of the other end's socket, if that has been restored by now; 0 otherwise."""
        wanted = net_lock.ends_of(sk).reversed
        found = [each for each in self._all if each.sk.ns_id == sk.ns_id and net_lock.ends_of(each.sk) == wanted]
        return os.fstat(found[0].fd.fileno()).st_ino if found else 0

    def _live(self) -> None:
        for each in self._all:
            with Borrowed(each.fd.fileno()) as connection:
                if each.sk.state != tcp_repair.SYN_SENT and self._has_peer(each.sk):
                    tcp_repair.end(connection)
        for each in self._all:
            with Borrowed(each.fd.fileno(), each.sk.family) as connection:
                try:
                    self._live_one(each, connection)
                except OSError as error:
                    raise RestoreError(f"{each.what}: its TCP connection cannot go on: {error.strerror}") from error

    def steps_if_ended(self) -> list[caretaker.Step]:
        """Closed in repair mode they send nothing, and nothing of them stays."""
        return [caretaker.option(each.fd.fileno(), _TCP, tcp_repair.REPAIR, tcp_repair.ON) for each in self._all]

    def steps_if_let_go(self) -> list[caretaker.Step]:
        """Every one goes on at once."""
        return [each.wake_step for each in self._all]

    def _wake(self) -> None:
        for each in self._all:
            try:
                caretaker.do(each.wake_step)
            except BlockingIOError:
                pass
            except OSError as error:
                log.warn(f"{each.what}: its connection cannot be asked for again: {error.strerror}")
        self._close()

    def _silence(self) -> None:
        """Those of a tree that has been ended."""
        for step in self.steps_if_ended():
            with suppress(OSError):
                caretaker.do(step)
        self._close()

    def _live_one(self, each: _Reborn, connection: Socket) -> None:
        sk = each.sk
        if sk.state == tcp_repair.SYN_SENT:
            tcp_repair.end_quietly(connection, int(sk.opts.reuseaddr))
            return
        is_inside = self._has_peer(sk)
        if not is_inside:
            tcp_fin.before_life(connection, sk, each.stream, self._raw)
            tcp_repair.end(connection)
        if each.unsent:
            options.widen(connection)
            tcp_repair.send_all(connection, each.unsent)
            options.restore_buffers(connection, sk.opts)
        if sk.state in SENT_FIN and (is_inside or sk.state != tcp_repair.FIN_WAIT2):
            connection.shutdown(socket.SHUT_WR)
        if not is_inside and sk.state == tcp_repair.CLOSING:
            tcp_fin.receive(connection, sk, each.stream, self._raw)
        if sk.shutdown & shutdown.RECEIVE:
            connection.shutdown(socket.SHUT_RD)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sk.opts.reuseaddr))

    def _close(self) -> None:
        for each in self._all:
            each.fd.close()
        self._all.clear()
        self._raw.close()


def is_stream(entry: m.file_entry) -> bool:
    """Whether a file of an image is a TCP connection."""
    return entry.HasField("isk") and entry.isk.proto == socket.IPPROTO_TCP and bool(entry.isk.dst_port)
