"""Options of sockets: SOL_SOCKET's by CRIU's fields, all others opaquely.

Kernel view
    getsockopt(2) on our duplicate.
Image
    ``sk_opts_entry``; ``torpor_option`` for every further option that differs from that of a new socket of the kind.
Restore
    setsockopt(2), when whatever they could disturb (binding, filling queues) is done.
Limits
    An option that the kernel refuses for a family is left out (6.16 limited SO_PASSCRED to a few).  eBPF filters stay
    unseen: the kernel gives out classic ones only.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.idmap import IdMaps
from torpor.kernel.sockets import Borrowed, Socket
from torpor.objects.files.model import FileDump, OpenFile
from torpor.objects.files.socket import filters
from torpor.objects.files.socket.make import new_socket

SOL_SOCKET = socket.SOL_SOCKET
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
_MAX_BUFFER = (1 << 30) - 1


@dataclass(frozen=True, slots=True)
class Field:
    """A member of ``sk_opts_entry``, and its option at SOL_SOCKET."""

    name: str
    option: int


#: Numbers that are always written and set.
_NUMBERS = (Field("so_priority", 12), Field("so_rcvlowat", 18), Field("so_buf_lock", 72), Field("so_oobinline", 10))
#: Switches: always written, set when on.
_SWITCHES = (
    Field("so_passcred", 16), Field("so_passsec", 34), Field("so_dontroute", 5), Field("so_no_check", 11),
    Field("so_broadcast", 6), Field("so_keepalive", 9),
)  # fmt: skip
_REUSE = (Field("reuseaddr", 2), Field("so_reuseport", 15))
#: All of these, and whether the value is the number itself.
_ALWAYS = tuple((field, field in _NUMBERS) for field in (*_NUMBERS, *_SWITCHES, *_REUSE))
_SO_SNDBUF, _SO_RCVBUF, _SO_LINGER, _SO_BINDTODEVICE = 7, 8, 13, 25
_SO_MARK, _SO_BUF_LOCK = 36, 72
_SO_RCVTIMEO, _SO_SNDTIMEO = 20, 21
#: SO_PASSPIDFD, SO_PASSRIGHTS.
_PASSING = (76, 83)
_SWITCH_FAMILIES = {
    "so_passcred": (socket.AF_UNIX, socket.AF_NETLINK),
    "so_passsec": (socket.AF_UNIX, socket.AF_NETLINK),
}
_ABSENT = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Opaque:
    """An option without a field in CRIU's messages: level, number, bytes."""

    level: int
    name: int
    size: int = 4


def _of_level(level: int, *names: int) -> tuple[Opaque, ...]:
    return tuple(Opaque(level, name) for name in names)


#: PEEK_OFF, RXQ_OVFL, TIMESTAMP and its kin, SELECT_ERR_QUEUE, BUSY_POLL, PASSPIDFD, PASSRIGHTS, RCVPRIORITY, ZEROCOPY.
_ANY = _of_level(SOL_SOCKET, 42, 40, 29, 35, 37, 45, 46, 76, 82, 83, 60)
#: MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS, RECVOPTS, RETOPTS, TRANSPARENT, MINTTL, RECVORIGDSTADDR, PASSSEC,
#: BIND_ADDRESS_NO_PORT, RECVFRAGSIZE, MULTICAST_IF, MULTICAST_TTL, MULTICAST_LOOP, MULTICAST_ALL, UNICAST_IF,
#: LOCAL_PORT_RANGE; OPTIONS.
_IP = (
    *_of_level(socket.IPPROTO_IP, 10, 11, 12, 13, 6, 7, 19, 21, 20, 18, 24, 25, 32, 33, 34, 49, 50, 51),
    Opaque(socket.IPPROTO_IP, 4, 40),
)
#: CHECKSUM, UNICAST_HOPS, MULTICAST_IF, MULTICAST_HOPS, MULTICAST_LOOP, MTU_DISCOVER, RECVERR, RECVHOPLIMIT,
#: RECVTCLASS, TCLASS,
#: RECVRTHDR, RECVHOPOPTS, RECVDSTOPTS, FLOWINFO_SEND, DONTFRAG, MULTICAST_ALL, AUTOFLOWLABEL, ADDR_PREFERENCES,
#: MINHOPCOUNT, RECVORIGDSTADDR, TRANSPARENT, UNICAST_IF.
_IPV6 = _of_level(
    socket.IPPROTO_IPV6, 7, 16, 17, 18, 19, 23, 25, 51, 66, 67, 56, 53, 58, 33, 62, 29, 70, 72, 73, 74, 75, 76
)
#: SYNCNT, LINGER2, DEFER_ACCEPT, USER_TIMEOUT, FASTOPEN, NOTSENT_LOWAT, SAVE_SYN, FASTOPEN_CONNECT, FASTOPEN_NO_COOKIE,
#: INQ, TX_DELAY, and the name of the congestion control.
_TCP = (*_of_level(socket.IPPROTO_TCP, 7, 8, 9, 18, 23, 25, 27, 30, 34, 36, 37), Opaque(socket.IPPROTO_TCP, 13, 16))
#: SEGMENT, GRO, NO_CHECK6_TX, NO_CHECK6_RX; UDP-Lite's coverages.
_UDP = _of_level(socket.IPPROTO_UDP, 103, 104, 101, 102)
_UDPLITE = _of_level(136, 10, 11)
#: NETLINK_PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, CAP_ACK, EXT_ACK, GET_STRICT_CHK.
_NETLINK = _of_level(270, 3, 4, 5, 8, 10, 11, 12)

_MULTICAST = (*_of_level(socket.IPPROTO_IP, 32, 33, 34), *_of_level(socket.IPPROTO_IPV6, 17, 18, 19))

_BY_FAMILY = {
    socket.AF_INET: _IP,
    socket.AF_INET6: (*_IPV6, Opaque(socket.IPPROTO_IP, 10), Opaque(socket.IPPROTO_IP, 24)),
    socket.AF_NETLINK: _NETLINK,
}  # fmt: skip
_BY_PROTOCOL = {socket.IPPROTO_TCP: _TCP, 262: _TCP, socket.IPPROTO_UDP: _UDP, 136: (*_UDP, *_UDPLITE)}
#: Memberships (multicast.py): MCAST_JOIN_GROUP, BLOCK_SOURCE, JOIN_SOURCE_GROUP.
_MEMBERSHIPS = (*_of_level(socket.IPPROTO_IP, 42, 43, 46), *_of_level(socket.IPPROTO_IPV6, 42, 43, 46))
#: All of them, by level and number: images can ask for no others.
_KNOWN = frozenset(
    (option.level, option.name)
    for options in (_ANY, *_BY_FAMILY.values(), *_BY_PROTOCOL.values(), _MEMBERSHIPS)
    for option in options
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides which options a socket has."""

    family: int
    type: int
    protocol: int

    @property
    def opaque(self) -> tuple[Opaque, ...]:
        """The options to look at beside CRIU's."""
        has_transport = self.type != socket.SOCK_RAW and self.family in (socket.AF_INET, socket.AF_INET6)
        transport = _BY_PROTOCOL.get(self.protocol, ()) if has_transport else ()
        found = (*_ANY, *_BY_FAMILY.get(self.family, ()), *transport)
        # Streams tell of multicast settings, but do not take them.
        return tuple(o for o in found if o not in _MULTICAST) if self.type == socket.SOCK_STREAM else found


_MAX_OPAQUE = 512


class Defaults:
    """The options of new sockets, asked for once a shape: a server has thousands of sockets of one."""

    def __init__(self, session: FileDump) -> None:
        self._known: dict[tuple[int, int, int], list[tuple[Opaque, bytes]]] = {}

    def of(self, shape: Shape) -> list[tuple[Opaque, bytes]]:
        """Every opaque option that this kernel has for such sockets, and a new one's value (empty: none yet)."""
        key = (shape.family, shape.type, shape.protocol)
        if key not in self._known:
            with new_socket(*key) as fresh:
                values = [(option, _read_opaque(fresh, option)) for option in shape.opaque]
            self._known[key] = [(option, value) for option, value in values if value is not None]
        return self._known[key]


def _read_opaque(connection: Socket, option: Opaque) -> bytes | None:
    """Its value; empty where the socket's state forbids the question, None where the kernel has no such option."""
    try:
        return connection.getsockopt(option.level, option.name, option.size)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            return None
        if error.errno not in _ABSENT:
            log.debug(f"socket option {option.level}:{option.name}: {error.strerror}")
        return b""


def dump(file: OpenFile, shape: Shape, opts: m.sk_opts_entry, session: FileDump) -> None:
    """Fill in *opts*."""
    with Borrowed(file.fd) as connection:
        get = connection.getsockopt
        opts.so_sndbuf, opts.so_rcvbuf = get(SOL_SOCKET, _SO_SNDBUF), get(SOL_SOCKET, _SO_RCVBUF)
        for field, as_is in _ALWAYS:
            if shape.family not in _SWITCH_FAMILIES.get(field.name, (shape.family,)):
                continue
            try:
                value = get(SOL_SOCKET, field.option)
            except OSError:
                continue
            setattr(opts, field.name, value if as_is else bool(value))
        if mark := get(SOL_SOCKET, _SO_MARK):
            opts.so_mark = mark
        opts.so_snd_tmo_sec, opts.so_snd_tmo_usec = struct.unpack("QQ", get(SOL_SOCKET, _SO_SNDTIMEO, 16))
        opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec = struct.unpack("QQ", get(SOL_SOCKET, _SO_RCVTIMEO, 16))
        is_lingering, linger_s = struct.unpack("ii", get(SOL_SOCKET, _SO_LINGER, 8))
        if is_lingering:
            opts.so_linger = linger_s
        if device := get(SOL_SOCKET, _SO_BINDTODEVICE, 16).rstrip(b"\0"):
            opts.so_bound_dev = device.decode()
        filters.dump(connection, opts)
        for option, default in session.part(Defaults).of(shape):
            content = _read_opaque(connection, option)
            if content and content != default:
                opts.torpor_option.add(level=option.level, name=option.name, value=content)
    user, group = file.process.idmaps.inside(file.stat.st_uid, file.stat.st_gid)
    if user or group:
        opts.torpor_uid, opts.torpor_gid = user, group


def widen(connection: Socket) -> None:
    """Make the buffers as large as they can be, so that a queue can be filled; ``restore`` sets them right."""
    _set_buffers(connection, _MAX_BUFFER, _MAX_BUFFER)


def restore(connection: Socket, opts: m.sk_opts_entry, what: str, idmaps: IdMaps) -> None:
    """Set everything that *opts* says except SO_REUSEADDR and SO_REUSEPORT; RestoreError names *what*."""
    _set_buffers(connection, opts.so_sndbuf // 2, opts.so_rcvbuf // 2)
    for field in _NUMBERS:
        if opts.HasField(field.name):  # type: ignore[arg-type]
            _set_number(connection, field, _int(getattr(opts, field.name)), what)
    for field in _SWITCHES:
        if getattr(opts, field.name):
            _set(connection, SOL_SOCKET, field.option, _int(1), what)
    if opts.so_mark:
        _set(connection, SOL_SOCKET, _SO_MARK, _int(opts.so_mark), what)
    if opts.HasField("so_linger"):
        _set(connection, SOL_SOCKET, _SO_LINGER, struct.pack("iI", 1, opts.so_linger), what)
    for option, seconds, micros in (
        (_SO_SNDTIMEO, opts.so_snd_tmo_sec, opts.so_snd_tmo_usec),
        (_SO_RCVTIMEO, opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec),
    ):
        if seconds or micros:
            _set(connection, SOL_SOCKET, option, struct.pack("QQ", seconds, micros), what)
    if opts.so_bound_dev:
        _set(connection, SOL_SOCKET, _SO_BINDTODEVICE, opts.so_bound_dev.encode() + b"\0", what)
    filters.restore(connection, opts, what)
    for option_entry in opts.torpor_option:
        _set_opaque(connection, option_entry, what)
    if opts.HasField("torpor_uid"):
        os.fchown(connection.fileno(), *idmaps.outside(opts.torpor_uid, opts.torpor_gid))


def restore_passing(connection: Socket, opts: m.sk_opts_entry, what: str) -> None:
    """What a message is to say of its sender: connections get it from their listener, when they are made (6.16)."""
    for field in _SWITCHES[:2]:
        if getattr(opts, field.name):
            _set(connection, SOL_SOCKET, field.option, _int(1), what)
    for option in opts.torpor_option:
        if option.level == SOL_SOCKET and option.name in _PASSING:
            _set_opaque(connection, option, what)


def restore_buffers(connection: Socket, opts: m.sk_opts_entry) -> None:
    """The buffers' sizes once more, after another ``widen``."""
    _set_buffers(connection, opts.so_sndbuf // 2, opts.so_rcvbuf // 2)
    if opts.HasField("so_buf_lock"):
        connection.setsockopt(SOL_SOCKET, _SO_BUF_LOCK, _int(opts.so_buf_lock))


def restore_reuse(connection: Socket, opts: m.sk_opts_entry, what: str) -> None:
    """SO_REUSEADDR and SO_REUSEPORT as they were; to be called when everything is bound."""
    for field in _REUSE:
        if opts.HasField(field.name):  # type: ignore[arg-type]
            _set(connection, SOL_SOCKET, field.option, _int(getattr(opts, field.name)), what, may_lack=True)


def _set_buffers(connection: Socket, send: int, receive: int) -> None:
    for forced, plain, wanted in ((SO_SNDBUFFORCE, _SO_SNDBUF, send), (SO_RCVBUFFORCE, _SO_RCVBUF, receive)):
        size = min(wanted, _MAX_BUFFER)
        try:
            connection.setsockopt(SOL_SOCKET, forced, size)
        except PermissionError:
            connection.setsockopt(SOL_SOCKET, plain, size)


def _int(value: int) -> bytes:
    return struct.pack("I", int(value) & 0xFFFFFFFF)


def _set(connection: Socket, level: int, option: int, value: bytes, what: str, *, may_lack: bool = False) -> None:
    try:
        connection.setsockopt(level, option, value)
    except OSError as error:
        if may_lack and error.errno in _ABSENT:
            return
        raise RestoreError(f"{what}: option {level}:{option} cannot be set: {error.strerror}") from error


def _set_number(connection: Socket, field: Field, value: bytes, what: str) -> None:
    """MPTCP shows options that it does not let anybody set: no matter where they are right."""
    try:
        _set(connection, SOL_SOCKET, field.option, value, what)
    except RestoreError:
        is_right = connection.getsockopt(SOL_SOCKET, field.option, len(value)) == value
        # Whoever was given a buffer's size by force has it locked, which there cannot be taken back.
        if not is_right and field.option != _SO_BUF_LOCK:
            raise


def _set_opaque(connection: Socket, option: m.torpor_socket_option, what: str) -> None:
    """Only what a dump asks about: others replace packet filters, or hold addresses of ours."""
    if (option.level, option.name) not in _KNOWN:
        log.warn(f"files.img: torpor_option: {what}: {option.level}:{option.name} is no option that is restored")
        return
    if len(option.value) > _MAX_OPAQUE:
        raise ImageError(f"files.img: {what}: an option of {len(option.value)} bytes")
    try:
        connection.setsockopt(option.level, option.name, option.value)
    except OSError as error:
        # What another kernel does not know was never part of CRIU's format: the default must do.
        log.warn(f"{what}: option {option.level}:{option.name} cannot be set: {error.strerror}")
