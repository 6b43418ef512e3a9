"""Options of sockets: SOL_SOCKET's by CRIU's fields, all others opaquely.

Kernel view
    getsockopt(2) on our duplicate.
Image
    ``sk_opts_entry``; ``torpor_option`` for every further option that differs from that of a new socket of the kind.
Restore
    setsockopt(2), when whatever they could disturb (binding, filling queues) is done.
Limits
    An option that the kernel refuses for a family is left out (6.16 limited SO_PASSCRED to a few).  eBPF filters are
    refused, since the kernel gives out classic ones only; programs that choose among sockets of a port
    (SO_ATTACH_REUSEPORT_*), sticky IPV6_PKTINFO, SO_BUSY_POLL_BUDGET and IP_MULTICAST_IF by number are told by nobody.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
from itertools import starmap

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.idmap import IdMaps
from torpor.kernel.sockets import Socket, asked
from torpor.kernel.uapi import socket as uapi
from torpor.kernel.uapi.socket import SOL_SOCKET
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import filters, option_tables, tcp_repair
from torpor.objects.files.socket.make import new_socket
from torpor.objects.files.socket.option_tables import Opaque, Shape
from torpor.objects.session import DumpContext

_MAX_BUFFER = (1 << 30) - 1


@dataclass(frozen=True, slots=True)
class Field:
    """A member of ``sk_opts_entry``, and its option at SOL_SOCKET."""

    name: str
    option: int


#: Numbers that are always written and set.
_NUMBERS = (
    Field("so_priority", uapi.SO_PRIORITY), Field("so_rcvlowat", uapi.SO_RCVLOWAT),
    Field("so_buf_lock", uapi.SO_BUF_LOCK), Field("so_oobinline", uapi.SO_OOBINLINE),
)  # fmt: skip
#: Switches: always written, set when on.
_SWITCHES = (
    Field("so_passcred", uapi.SO_PASSCRED), Field("so_passsec", uapi.SO_PASSSEC),
    Field("so_dontroute", uapi.SO_DONTROUTE), Field("so_no_check", uapi.SO_NO_CHECK),
    Field("so_broadcast", uapi.SO_BROADCAST), Field("so_keepalive", uapi.SO_KEEPALIVE),
)  # fmt: skip
_REUSE = (Field("reuseaddr", uapi.SO_REUSEADDR), Field("so_reuseport", uapi.SO_REUSEPORT))
#: All of these, and whether the value is the number itself.
_ALWAYS = tuple((field, field in _NUMBERS) for field in (*_NUMBERS, *_SWITCHES, *_REUSE))
#: Beside them, as numbers and as structures of so many bytes.
_BUFFERS = (uapi.SO_SNDBUF, uapi.SO_RCVBUF)
_STRUCTURES = (
    (uapi.SO_SNDTIMEO_OLD, 16), (uapi.SO_RCVTIMEO_OLD, 16), (uapi.SO_LINGER, 8), (uapi.SO_BINDTODEVICE, 16),
)  # fmt: skip
_PASSING = (uapi.SO_PASSPIDFD, uapi.SO_PASSRIGHTS)
_SWITCH_FAMILIES = {
    "so_passcred": (socket.AF_UNIX, socket.AF_NETLINK),
    "so_passsec": (socket.AF_UNIX, socket.AF_NETLINK),
}
_ABSENT = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
_MAX_OPAQUE = 2048
#: The longest value that getsockopt of Python gives, in bytes.
_PYTHON_MAX = 1024
#: Where ``struct tcp_info`` has the size in use.
_INFO_SND_MSS = slice(16, 20)


class Alike:
    """What sockets of one shape have answered, and what that comes to: most of them answer all questions alike."""

    def __init__(self, shape: Shape, options: list[Opaque]) -> None:
        self.known: dict[tuple[int | bytes, ...], m.sk_opts_entry] = {}
        fields = [
            field.option for field, _ in _ALWAYS if shape.family in _SWITCH_FAMILIES.get(field.name, (shape.family,))
        ]
        questions: list[tuple[int, ...]] = [(SOL_SOCKET, number) for number in (*_BUFFERS, *fields, uapi.SO_MARK)]
        questions += [(SOL_SOCKET, number, size) for number, size in _STRUCTURES]
        questions += [(option.level, option.name, min(option.size, _PYTHON_MAX)) for option in options]
        # TCP_MAXSEG is answered with the size in use, not the one that was set: where it is asked for, equal answers do
        # not mean equal options.
        self._can_tell = (tcp_repair.TCP, option_tables.TCP_MAXSEG) not in [each[:2] for each in questions]
        self._asked: list[tuple[int, ...]] = []
        self._unanswered: list[tuple[int, ...]] = []
        with new_socket(shape.family, shape.type, shape.protocol) as fresh:
            for each in questions:
                (self._asked if _answers(fresh, each) else self._unanswered).append(each)

    def ask(self, connection: Socket) -> tuple[int | bytes, ...] | None:
        """The answers; None where they do not tell all: it must be asked one by one."""
        if not self._can_tell or any(_answers(connection, each) for each in self._unanswered):
            return None
        try:
            return tuple(starmap(connection.getsockopt, self._asked))
        except OSError:
            return None

    def note(self, answers: tuple[int | bytes, ...], opts: m.sk_opts_entry) -> None:
        """What *answers* come to, unless there may be more to one of them."""
        if not any(isinstance(each, bytes) and len(each) == _PYTHON_MAX for each in answers):
            copy = self.known[answers] = m.sk_opts_entry()
            copy.MergeFrom(opts)


def _answers(connection: Socket, question: tuple[int, ...]) -> bool:
    try:
        connection.getsockopt(*question)
    except OSError:
        return False
    return True


class Defaults:
    """The options of new sockets, asked for once a shape: a server has thousands of sockets of one."""

    def __init__(self, context: DumpContext) -> None:
        self._known: dict[tuple[int, int, int], list[tuple[Opaque, bytes]]] = {}
        self._alike: dict[tuple[int, int, int], Alike] = {}

    def alike(self, shape: Shape) -> Alike:
        """What is known of the sockets of that shape."""
        key = (shape.family, shape.type, shape.protocol)
        if key not in self._alike:
            self._alike[key] = Alike(shape, [option for option, _ in self.of(shape)])
        return self._alike[key]

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
        content = connection.getsockopt(option.level, option.name, min(option.size, _PYTHON_MAX))
        if len(content) == _PYTHON_MAX:
            content = connection.getsockopt_in(option.level, option.name, bytearray(option.size))
        return content
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            return None
        if error.errno not in _ABSENT:
            log.debug(f"socket option {option.level}:{option.name}: {error.strerror}")
        return b""


def _is_of_the_moment(connection: Socket, option: Opaque, content: bytes) -> bool:
    """Whether the answer is no setting: TCP_MAXSEG, but of closed and listening sockets, tells the size in use."""
    if (option.level, option.name) != (tcp_repair.TCP, option_tables.TCP_MAXSEG):
        return False
    info = tcp_repair.info(connection)
    if info[0] == tcp_repair.LISTEN:
        return False
    return info[0] != tcp_repair.CLOSE or content == info[_INFO_SND_MSS]


def dump(file: OpenFile, shape: Shape, opts: m.sk_opts_entry, context: DumpContext) -> None:
    """Fill in *opts* with the options of the socket, which is of that *shape*.  RefusedError (see above)."""
    alike = context.part(Defaults).alike(shape)
    connection = asked(file.fd)
    n_filter = filters.count(file, connection)
    answers = alike.ask(connection) if not n_filter else None
    known = alike.known.get(answers) if answers is not None else None
    if known is not None:
        opts.MergeFrom(known)
    else:
        _dump_each(connection, shape, opts, context)
        filters.dump(connection, n_filter, opts)
        if answers is not None:
            alike.note(answers, opts)
    user, group = file.process.idmaps.inside(file.stat.st_uid, file.stat.st_gid)
    if user or group:
        opts.torpor_uid, opts.torpor_gid = user, group


def _dump_each(connection: Socket, shape: Shape, opts: m.sk_opts_entry, context: DumpContext) -> None:
    get = connection.getsockopt
    opts.so_sndbuf, opts.so_rcvbuf = get(SOL_SOCKET, uapi.SO_SNDBUF), get(SOL_SOCKET, uapi.SO_RCVBUF)
    for field, as_is in _ALWAYS:
        if shape.family not in _SWITCH_FAMILIES.get(field.name, (shape.family,)):
            continue
        try:
            value = get(SOL_SOCKET, field.option)
        except OSError:
            continue
        setattr(opts, field.name, value if as_is else bool(value))
    if mark := get(SOL_SOCKET, uapi.SO_MARK):
        opts.so_mark = mark
    opts.so_snd_tmo_sec, opts.so_snd_tmo_usec = struct.unpack("QQ", get(SOL_SOCKET, uapi.SO_SNDTIMEO_OLD, 16))
    opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec = struct.unpack("QQ", get(SOL_SOCKET, uapi.SO_RCVTIMEO_OLD, 16))
    is_lingering, linger_s = struct.unpack("ii", get(SOL_SOCKET, uapi.SO_LINGER, 8))
    if is_lingering:
        opts.so_linger = linger_s
    if device := get(SOL_SOCKET, uapi.SO_BINDTODEVICE, 16).rstrip(b"\0"):
        opts.so_bound_dev = device.decode()
    for option, default in context.part(Defaults).of(shape):
        try:
            if option.size <= _PYTHON_MAX and get(option.level, option.name, option.size) == default:
                continue  # nearly all of them, of every socket
        except OSError:
            if not default:
                continue
        content = _read_opaque(connection, option)
        if content and content != default and not _is_of_the_moment(connection, option, content):
            opts.torpor_option.add(level=option.level, name=option.name, value=content)


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
        _set(connection, SOL_SOCKET, uapi.SO_MARK, _int(opts.so_mark), what)
    if opts.HasField("so_linger"):
        _set(connection, SOL_SOCKET, uapi.SO_LINGER, struct.pack("iI", 1, opts.so_linger), what)
    for timeout, seconds, micros in (
        (uapi.SO_SNDTIMEO_OLD, opts.so_snd_tmo_sec, opts.so_snd_tmo_usec),
        (uapi.SO_RCVTIMEO_OLD, opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec),
    ):
        if seconds or micros:
            _set(connection, SOL_SOCKET, timeout, struct.pack("QQ", seconds, micros), what)
    if opts.so_bound_dev:
        _set(connection, SOL_SOCKET, uapi.SO_BINDTODEVICE, opts.so_bound_dev.encode() + b"\0", what)
    filters.restore(connection, opts, what)
    for option in opts.torpor_option:
        _set_opaque(connection, option, what)
    if opts.HasField("torpor_uid"):
        os.fchown(connection.fileno(), *idmaps.outside(opts.torpor_uid, opts.torpor_gid))


def restore_early(connection: Socket, opts: m.sk_opts_entry, level: int, what: str) -> None:
    """The further options of one level, ahead of the rest."""
    for option in opts.torpor_option:
        if option.level == level:
            _set_opaque(connection, option, what)


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
        connection.setsockopt(SOL_SOCKET, uapi.SO_BUF_LOCK, _int(opts.so_buf_lock))


def restore_reuse(connection: Socket, opts: m.sk_opts_entry, what: str) -> None:
    """SO_REUSEADDR and SO_REUSEPORT as they were; to be called when everything is bound."""
    for field in _REUSE:
        if opts.HasField(field.name):  # type: ignore[arg-type]
            _set(connection, SOL_SOCKET, field.option, _int(getattr(opts, field.name)), what, may_lack=True)


def _set_buffers(connection: Socket, send: int, receive: int) -> None:
    for forced, plain, wanted in (
        (uapi.SO_SNDBUFFORCE, uapi.SO_SNDBUF, send),
        (uapi.SO_RCVBUFFORCE, uapi.SO_RCVBUF, receive),
    ):
        size = min(wanted, _MAX_BUFFER)
        if connection.getsockopt(SOL_SOCKET, plain) == size * 2:
            continue  # whoever sets it locks it, which MPTCP cannot take back
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
        # A buffer whose size was set by force is locked by that, and a kernel without SO_BUF_LOCK cannot take it back.
        if not is_right and field.option != uapi.SO_BUF_LOCK:
            raise


def _set_opaque(connection: Socket, option: m.torpor_socket_option, what: str) -> None:
    """Only what a dump asks about: others replace packet filters, or hold addresses of ours."""
    if (option.level, option.name) not in option_tables.KNOWN:
        log.warn(f"files.img: torpor_option: {what}: {option.level}:{option.name} is no option that is restored")
        return
    if len(option.value) > _MAX_OPAQUE:
        raise ImageError(f"files.img: {what}: an option of {len(option.value)} bytes")
    if _read_opaque(connection, Opaque(option.level, option.name, _MAX_OPAQUE)) == option.value:
        return
    try:
        connection.setsockopt(option.level, option.name, option.value)
    except OSError as error:
        # What another kernel does not know was never part of CRIU's format: the default must do.
        log.warn(f"{what}: option {option.level}:{option.name} cannot be set: {error.strerror}")
