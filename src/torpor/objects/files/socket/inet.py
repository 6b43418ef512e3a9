"""Sockets of the internet families: TCP, UDP, UDP-Lite, raw, ping, MPTCP listeners.

Kernel view
    getsockname(2), getpeername(2), SO_PROTOCOL; the rest by protocol (``tcp``, ``udp``).
Image
    ``inet_sk_entry``; addresses are words in network order.
Restore
    All sockets are made and bound before any is finished: SO_REUSEADDR stays on until then, so that sockets that share
    a port can be bound whatever their own value.  Established TCP: ``tcp_stream``.
Limits
    Corked UDP data is refused.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.uapi.inet import IP_FREEBIND, IPPROTO_MPTCP, IPPROTO_UDPLITE, IPV6_FREEBIND
from torpor.kernel.uapi.socket import SO_PEERNAME
from torpor.objects.files import fown
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket import (
    addresses,
    filters,
    ip_options,
    left_clients,
    multicast,
    options,
    tcp,
    udp,
    udp_queue,
)
from torpor.objects.files.socket.finish import finish
from torpor.objects.files.socket.make import family_of, make_socket
from torpor.objects.files.socket.option_tables import Shape
from torpor.objects.session import DumpContext, RestoreContext, RestoreStage

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_TCPS = (socket.IPPROTO_TCP, IPPROTO_MPTCP)
_UDPS = (socket.IPPROTO_UDP, IPPROTO_UDPLITE)
_PINGS = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
_KNOWN = (socket.IPPROTO_IP, *_TCPS, *_UDPS, *_PINGS)
#: How an IPv4 address begins as one of IPv6.
_MAPPED = [0, 0, socket.htonl(0xFFFF)]
_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)


def matches(file: OpenFile) -> bool:
    """Whether it is a socket of AF_INET or AF_INET6."""
    return family_of(file) in _FAMILIES


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.isk``: addresses, state, options, and what its protocol has.

    RefusedError for what cannot be carried, or what the policy does not allow to be.
    """
    sk = entry.isk
    sk.id, sk.ino, sk.flags = entry.id, file.stat.st_ino & 0xFFFFFFFF, file.flags
    sk.ns_id = context.part(Networks).id_of(file)
    fown.fill(sk.fown, file)
    with Borrowed(file.fd) as connection:
        shape = _shape(connection)
        sk.family, sk.type, sk.proto = shape.family, shape.type, shape.protocol
        _check_shape(file, shape)
        _addresses(connection, sk)
        if shape.family == socket.AF_INET6:
            sk.v6only = bool(connection.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        sk.state, sk.backlog = tcp.TCP_CLOSE, 0
        ip_options.dump(connection, sk)
    options.dump(file, shape, sk.opts, context)
    if shape.type != socket.SOCK_STREAM:
        with Borrowed(file.fd) as connection:
            multicast.dump(file, connection, sk.opts, context)
    if shape.type != socket.SOCK_RAW and shape.protocol in _TCPS:
        tcp.dump(file, sk, context)
    else:
        udp.dump(file, sk, context)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse protocols and connections that cannot be carried."""
    context.part(Networks).check(file)
    with Borrowed(file.fd) as connection:
        shape = _shape(connection)
        _check_shape(file, shape)
        filters.count(file, connection)
        if shape.type == socket.SOCK_RAW or shape.protocol not in _TCPS:
            udp.check(file, 0 if shape.type == socket.SOCK_RAW else shape.protocol)
            return
        sk = m.inet_sk_entry(family=shape.family, proto=shape.protocol)
        _addresses(connection, sk)
    tcp.check(file, sk, context)


def _check_shape(file: OpenFile, shape: Shape) -> None:
    if (shape.type != socket.SOCK_RAW and shape.protocol not in _KNOWN) or shape.type not in _TYPES:
        raise file.refuse(f"an internet socket of protocol {shape.protocol}", hint="close it and try again")


def _shape(connection: Socket) -> Shape:
    family, kind, protocol = (connection.getsockopt(socket.SOL_SOCKET, option) for option in (39, 3, 38))
    return Shape(family, kind, protocol)


def _addresses(connection: Socket, sk: m.inet_sk_entry) -> None:
    n_words = 4 if sk.family == socket.AF_INET6 else 1
    source = addresses.read(connection.getsockname(), sk.family)
    try:
        # getpeername(2) does not tell of connections that are being made or have ended.
        size = 28 if sk.family == socket.AF_INET6 else 16
        target = addresses.parse(connection.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, size))
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):
            raise
        target = addresses.Address((0,) * n_words, 0)
    sk.src_addr.extend(source.words)
    sk.src_port = source.port
    sk.dst_addr.extend(target.words)
    sk.dst_port = target.port
    if source.scope:
        sk.ifname = socket.if_indextoname(source.scope)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Make, bind, and connect or listen."""
    sk = entry.isk
    what = f"socket {entry.id}"
    if sk.family not in _FAMILIES or sk.type not in _TYPES:
        raise ImageError(f"files.img: {what}: family {sk.family}, type {sk.type}")
    connection = make_socket(context, sk.family, sk.type, sk.proto, sk.ns_id)
    try:
        if sk.HasField("v6only"):
            _set_v6only(connection, sk)
        if _is_tcp(sk) and tcp.is_connection(sk):
            tcp.restore_connection(connection, sk, context, what)
        else:
            _restore_plain(connection, sk, context, what)
        context.part(Unfinished).add(entry.id, sk)
        return connection.detach()
    except OSError as error:
        raise RestoreError(f"{what} ({_name(sk)}): {error.strerror}", hint=_hint(error)) from error
    finally:
        connection.close()


class Unfinished:
    """The sockets that still have SO_REUSEADDR and the buffers of a new socket."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._sockets: list[tuple[int, m.inet_sk_entry]] = []
        ports: list[tuple[int, int]] = [
            (entry.isk.proto, entry.isk.src_port) for entry in context.files.entries.values() if entry.HasField("isk")
        ]
        #: Ports that several sockets of the image have: each of them must say SO_REUSEPORT to be bound.
        self.shared_ports = {port for port in ports if ports.count(port) > 1} if len(ports) < 1000 else set(ports)
        context.at(RestoreStage.OPENED, self._finish)

    def add(self, file_id: int, sk: m.inet_sk_entry) -> None:
        """Finish it when all are bound."""
        self._sockets.append((file_id, sk))

    def _finish(self) -> None:
        for file_id, sk in self._sockets:
            what = f"socket {file_id}"
            shut = tcp.shut_of(sk) if _is_tcp(sk) else sk.shutdown
            with Borrowed(self._context.files.open(file_id)) as connection:
                if sk.type == socket.SOCK_DGRAM and sk.proto in _UDPS:
                    is_shared = (sk.proto, sk.src_port) in self.shared_ports
                    udp_queue.restore(connection, file_id, sk, self._context, is_shared=is_shared)
                ip_options.restore(connection, sk, what)
                living = _is_tcp(sk) and tcp.is_carried(sk, self._context)
                finish(connection, sk, what, self._context.idmaps, shut=0 if living else shut)


def _is_tcp(sk: m.inet_sk_entry) -> bool:
    return sk.type != socket.SOCK_RAW and sk.proto in _TCPS


def _restore_plain(connection: Socket, sk: m.inet_sk_entry, context: RestoreContext, what: str) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sk.opts.so_reuseport or (sk.proto, sk.src_port) in context.part(Unfinished).shared_ports:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _set_device(connection, sk)
    target = addresses.to_python(sk.family, sk.dst_addr, sk.dst_port)
    source = addresses.to_python(sk.family, sk.src_addr, sk.src_port, addresses.scope_of(sk, what))
    is_bound = sk.src_port or (any(sk.src_addr) and not sk.dst_port and not any(sk.dst_addr))
    if is_bound and _is_chosen_by_route(sk, context, target, source):
        source = ("::", sk.src_port)
    if is_bound:
        _bind(connection, sk, source, what)
    if sk.state == tcp.TCP_LISTEN:
        if sk.proto not in _TCPS:
            raise ImageError(f"files.img: {what} listens, but is no TCP socket")
        connection.listen(sk.backlog)
        left_clients.restore(sk, context, what)
    elif sk.dst_port or any(sk.dst_addr):
        _set_broadcast(connection, sk)
        connection.connect(target)


def _is_chosen_by_route(
    sk: m.inet_sk_entry, context: RestoreContext, target: tuple[str | int, ...], source: tuple[str | int, ...]
) -> bool:
    """Whether connect(2) finds the address of an IPv6 socket: to bind it would take IPv4 away from the socket."""
    is_candidate = sk.family == socket.AF_INET6 and sk.type == socket.SOCK_DGRAM and sk.dst_port and not sk.v6only
    if not is_candidate or sk.src_addr[:3] == _MAPPED or not any(sk.src_addr):
        return False
    with make_socket(context, sk.family, sk.type, sk.proto, sk.ns_id) as probe:
        try:
            _set_device(probe, sk)
            probe.connect(target)
        except OSError:
            return False
        return bool(probe.getsockname()[0] == source[0])


def _bind(connection: Socket, sk: m.inet_sk_entry, source: tuple[str | int, ...], what: str) -> None:
    """With IP_FREEBIND, since an address may be new to the machine and not usable yet (IPv6: tentative)."""
    level, option = (41, IPV6_FREEBIND) if sk.family == socket.AF_INET6 else (0, IP_FREEBIND)
    is_free = sk.ip_opts.freebind or (sk.family == socket.AF_INET6 and sk.type != socket.SOCK_RAW)
    if is_free:
        connection.setsockopt(level, option, 1)
    try:
        connection.bind(source)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        # The sockets of one image may share a port that they could share only because of when they were bound.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            connection.bind(source)
        except OSError:
            # A connection that has ended shows a port that it has given back.
            if sk.state != tcp.TCP_CLOSE or not sk.shutdown:
                raise
            log.debug(f"{what}: its connection has ended, and others use its port")
    if is_free and not sk.ip_opts.freebind:
        connection.setsockopt(level, option, 0)


def _set_v6only(connection: Socket, sk: m.inet_sk_entry) -> None:
    """New ping sockets have it, others by net.ipv6.bindv6only; raw ones take none."""
    is_ipv6 = sk.family == socket.AF_INET6
    if is_ipv6 and bool(connection.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) != sk.v6only:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(sk.v6only))


def _set_device(connection: Socket, sk: m.inet_sk_entry) -> None:
    if sk.opts.so_bound_dev:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sk.opts.so_bound_dev.encode() + b"\0")


def _set_broadcast(connection: Socket, sk: m.inet_sk_entry) -> None:
    if sk.opts.so_broadcast:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


def _name(sk: m.inet_sk_entry) -> str:
    try:
        host, port = addresses.to_python(sk.family, sk.src_addr, sk.src_port)[:2]
    except (ImageError, struct.error):
        return "?"
    return f"{host}:{port}"


def _hint(error: OSError) -> str | None:
    if error.errno == errno.EADDRINUSE:
        return "another process has the port; end it, or restore into a network namespace of its own"
    if error.errno == errno.EADDRNOTAVAIL:
        return "the address is not one of this machine's"
    return None


KIND = FileKind("internet socket", m.fd_types.INETSK, matches, dump, restore, check=check)
