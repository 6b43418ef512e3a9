"""The options of IP, IPv6, TCP and raw sockets that have fields in CRIU's images.

Kernel view
    getsockopt(2) on our duplicate; the ICMP filter of raw sockets of that protocol.
Image
    ``ip_opts_entry`` and ``tcp_opts_entry``; a field is there where its value is not 0.
Restore
    setsockopt(2) of each field that is there; the others stay as a new socket has them.
Limits
    An option that this kernel, or this type of socket, does not have is left out of the image; one that is there and
    cannot be set is an error.  All further options are ``options``' and opaque.
"""

from __future__ import annotations

import _socket as socket
import struct

from torpor.base.errors import RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.icmp import ICMP_FILTER
from torpor.kernel.uapi.icmpv6 import ICMPV6_FILTER
from torpor.kernel.uapi.inet import IP_FREEBIND, IPV6_FREEBIND
from torpor.kernel.uapi.socket import SOL_ICMPV6, SOL_RAW

_ICMPV6 = 58


@dataclass(frozen=True, slots=True)
class Field:
    """A member of the message, and its option."""

    name: str
    level: int
    option: int


_IPV4 = (Field("freebind", 0, IP_FREEBIND), Field("pktinfo", 0, 8), Field("tos", 0, 1), Field("ttl", 0, 2))
_IPV6 = (Field("freebind", 41, IPV6_FREEBIND), Field("pktinfo", 41, 49))
_RAW = {
    socket.AF_INET: (Field("hdrincl", 0, 3), Field("nodefrag", 0, 22)),
    socket.AF_INET6: (Field("hdrincl", 41, 36),),
}
_TCP = (
    Field("nodelay", 6, 1), Field("cork", 6, 3),
    Field("keepcnt", 6, 6), Field("keepidle", 6, 4), Field("keepintvl", 6, 5),
)  # fmt: skip
_BOOLEANS = frozenset(("freebind", "pktinfo", "hdrincl", "nodefrag", "nodelay", "cork"))


def dump(connection: Socket, sk: m.inet_sk_entry) -> None:
    """Fill in ``ip_opts``, and ``tcp_opts`` for TCP."""
    sk.ip_opts.SetInParent()
    _read(connection, sk.ip_opts, _IPV6 if sk.family == socket.AF_INET6 else _IPV4)
    if sk.type == socket.SOCK_RAW:
        raw = sk.ip_opts.raw
        raw.SetInParent()
        _read(connection, raw, _RAW[sk.family])
        level, option, size = _filter_of(sk)
        if size:
            raw.icmpv_filter.extend(struct.unpack(f"={size // 4}I", connection.getsockopt(level, option, size)))
    elif sk.proto in (socket.IPPROTO_TCP, 262):
        _read(connection, sk.tcp_opts, _TCP)


def _filter_of(sk: m.inet_sk_entry) -> tuple[int, int, int]:
    """Level, option and size of the ICMP filter; size 0 for other protocols."""
    if sk.proto == socket.IPPROTO_ICMP and sk.family == socket.AF_INET:
        return SOL_RAW, ICMP_FILTER, 4
    if sk.proto == _ICMPV6 and sk.family == socket.AF_INET6:
        return SOL_ICMPV6, ICMPV6_FILTER, 32
    return 0, 0, 0


def _read(
    connection: Socket,
    entry: m.ip_opts_entry | m.ip_opts_raw_entry | m.tcp_opts_entry,
    fields: tuple[Field, ...],
) -> None:
    for field in fields:
        try:
            value = connection.getsockopt(field.level, field.option)
        except OSError:
            continue  # not of this kernel, or not of this type of socket
        if value > 0 or (field.name == "tos" and value):
            setattr(entry, field.name, bool(value) if field.name in _BOOLEANS else value)


def restore(connection: Socket, sk: m.inet_sk_entry, what: str) -> None:
    """Set what the image has."""
    fields = _IPV6 if sk.family == socket.AF_INET6 else _IPV4
    _write(connection, sk.ip_opts, fields, what)
    if sk.type == socket.SOCK_RAW:
        raw = sk.ip_opts.raw
        _write(connection, raw, _RAW[sk.family], what)
        level, option, size = _filter_of(sk)
        if size and len(raw.icmpv_filter) * 4 == size:
            connection.setsockopt(level, option, struct.pack(f"={size // 4}I", *raw.icmpv_filter))
    elif sk.proto in (socket.IPPROTO_TCP, 262):
        _write(connection, sk.tcp_opts, _TCP, what)


def _write(
    connection: Socket,
    entry: m.ip_opts_entry | m.ip_opts_raw_entry | m.tcp_opts_entry,
    fields: tuple[Field, ...],
    what: str,
) -> None:
    for field in fields:
        if not entry.HasField(field.name):  # type: ignore[arg-type]
            continue
        try:
            connection.setsockopt(field.level, field.option, struct.pack("I", int(getattr(entry, field.name))))
        except OSError as error:
            raise RestoreError(f"{what}: its {field.name} cannot be set: {error.strerror}") from error
