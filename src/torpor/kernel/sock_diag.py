"""sock_diag(7): what the kernel's tables say of unix and UDP sockets that the sockets themselves do not say.

TCP needs no table: TCP_INFO tells a socket's state, and a listener's backlog in ``tcpi_unacked`` and ``tcpi_sacked``.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct

from torpor.base.errors import KernelError
from torpor.base.records import dataclass
from torpor.kernel import netlink
from torpor.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from torpor.kernel.uapi.sock_diag import SOCK_DESTROY, SOCK_DIAG_BY_FAMILY

_AF_UNIX = 1

_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_HEADER = struct.Struct("=BBBBIII")
_SHOW = 0x1 | 0x2 | 0x4 | 0x8 | 0x10
_NAME, _VFS, _PEER, _ICONS, _RQLEN, _, _SHUTDOWN = range(7)

_INET_REQUEST = struct.Struct("=BBBBI2s2s44x")
#: INET_DIAG_INFO, without which nothing is said of keys.
_INET_WITH_INFO = 1 << 1
_INET_HEADER = struct.Struct("=BBBB48xIIIII")
_INET_INFO, _INET_SHUTDOWN, _INET_MD5SIG = 2, 8, 18


#: What shows the sockets of a protocol, where it is not built in; of all others raw_diag does.
_MODULES = {6: "tcp_diag", 17: "udp_diag", 132: "sctp_diag", 136: "udp_diag", 262: "mptcp_diag"}


def _ask(request: bytes, module: str) -> list[bytes]:
    """All rows of a table; KernelError, with the module that shows it in the hint, where there is none."""
    try:
        return netlink.dump(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, request)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        hint = f"the kernel shows such sockets with its module {module}, which could not be loaded: modprobe {module}"
        raise KernelError(error.call, error.errno, hint=hint) from error


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A unix socket: ``peer`` is an inode or 0; ``pending`` the inodes that wait to be accepted, 0 for one closed.

    ``file`` is (inode, device as the kernel packs it) of its name in a file system.
    """

    ino: int
    type: int
    state: int
    name: bytes = b""
    peer: int = 0
    pending: tuple[int, ...] = ()
    n_unread: int = 0
    backlog: int = 0
    shutdown: int = 0
    file: tuple[int, int] | None = None


def read_unix() -> dict[int, UnixSocket]:
    """All unix sockets of our network namespace by inode."""
    request = _UNIX_REQUEST.pack(_AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
    answers = _ask(request, "unix_diag")
    found = (parse_unix(answer) for answer in answers)
    return {each.ino: each for each in found}


def parse_unix(answer: bytes) -> UnixSocket:
    """One ``unix_diag_msg`` with its attributes."""
    _, kind, state, _, ino, _, _ = _UNIX_HEADER.unpack_from(answer)
    attributes = netlink.parse_attributes(answer[_UNIX_HEADER.size :])
    icons = attributes.get(_ICONS, b"")
    unread, backlog = struct.unpack_from("=II", attributes.get(_RQLEN, bytes(8)))
    vfs = attributes.get(_VFS)
    return UnixSocket(
        ino=ino,
        type=kind,
        state=state,
        name=attributes.get(_NAME, b""),
        peer=int.from_bytes(attributes.get(_PEER, b""), "little"),
        pending=struct.unpack(f"={len(icons) // 4}I", icons),
        n_unread=unread,
        backlog=backlog,
        shutdown=int.from_bytes(attributes.get(_SHUTDOWN, b""), "little"),
        file=struct.unpack("=II", vfs) if vfs else None,
    )


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A socket of the internet families: bytes in its queues, the directions that are shut down, keys of TCP_MD5SIG."""

    ino: int
    state: int
    n_unread: int
    n_unsent: int
    shutdown: int
    is_signed: bool = False


def read_inet(
    family: int, protocol: int, states: int = 0xFFFFFFFF, *, with_keys: bool = False, port: int = 0, peer_port: int = 0
) -> dict[int, InetSocket]:
    """All sockets of *family* and *protocol* in our network namespace by inode (TCP: those with an inode).

    *states* is a mask of those to be told of, *port* and *peer_port* are theirs (0: any); whether one ``is_signed`` is
    told *with_keys*.
    """
    extensions = _INET_WITH_INFO if with_keys else 0
    ports = port.to_bytes(2, "big"), peer_port.to_bytes(2, "big")
    request = _INET_REQUEST.pack(family, protocol, extensions, 0, states, *ports)
    found = {}
    for answer in _ask(request, _MODULES.get(protocol, "raw_diag")):
        _, state, _, _, _, unread, unsent, _, ino = _INET_HEADER.unpack_from(answer)
        attributes = netlink.parse_attributes(answer[_INET_HEADER.size :])
        shutdown = int.from_bytes(attributes.get(_INET_SHUTDOWN, b""), "little")
        found[ino] = InetSocket(ino, state, unread, unsent, shutdown, _INET_MD5SIG in attributes)
    return found


_INET_ENDS = struct.Struct("!4xHH16s16s")
_INET_PORT_REQUEST = struct.Struct("=BBBBI")
#: Connections whose listener may not have accepted them: SYN_RECV (of either kind), ESTABLISHED, CLOSE_WAIT.
_UNACCEPTED = 1 << 3 | 1 << 12 | 1 << 1 | 1 << 8


def read_unaccepted(family: int, port: int) -> list[tuple[bytes, int, bytes, int]]:
    """Of each TCP connection to *port* in our network namespace that nobody has accepted: both ends, ours first.

    An end is an address, packed in four bytes or 16, and a port.
    """
    request = _INET_PORT_REQUEST.pack(family, 6, 0, 0, _UNACCEPTED) + port.to_bytes(2, "big") + bytes(46)
    found = []
    for answer in _ask(request, _MODULES[6]):
        *_, ino = _INET_HEADER.unpack_from(answer)
        own_port, peer_port, own, peer = _INET_ENDS.unpack_from(answer)
        if own_port == port and not ino:
            length = 4 if family == socket.AF_INET else 16
            found.append((own[:length], own_port, peer[:length], peer_port))
    return found


#: Connections that have said goodbye, and whose other end has not acknowledged it: FIN_WAIT1, LAST_ACK, CLOSING.
_CLOSING = 1 << 4 | 1 << 9 | 1 << 11
#: Where tcpi_rtt is in a struct tcp_info (``include/uapi/linux/tcp.h``).
_RTT_AT = 68


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A TCP connection that no process has any more, while it still delivers: both ends, ours first.

    ``n_left``: the bytes that the other end has not acknowledged, the goodbye (FIN) counts as one; ``rtt_us``: how long
    it takes to do so, as far as the kernel knows, in microseconds, or 0.
    """

    here: tuple[bytes, int]
    there: tuple[bytes, int]
    n_left: int
    rtt_us: int


def read_goodbyes() -> list[Goodbye]:
    """All such connections of our network namespace; KernelError where the kernel does not tell."""
    found = []
    for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        request = _INET_PORT_REQUEST.pack(family, socket.IPPROTO_TCP, _INET_WITH_INFO, 0, _CLOSING) + bytes(48)
        for answer in _ask(request, _MODULES[6]):
            *_, n_left, _, inode = _INET_HEADER.unpack_from(answer)
            if inode or not n_left:
                continue
            port, peer_port, own, peer = _INET_ENDS.unpack_from(answer)
            info = netlink.parse_attributes(answer[_INET_HEADER.size :]).get(_INET_INFO, b"")
            rtt_us = int.from_bytes(info[_RTT_AT : _RTT_AT + 4], "little")
            found.append(Goodbye((own[:length], port), (peer[:length], peer_port), n_left, rtt_us))
    return found


_INET_ID = struct.Struct("!HH16s16sI8s")
_ANY_COOKIE = b"\xff" * 8


def destroy_orphan(family: int, here: tuple[bytes, int], there: tuple[bytes, int], *, ours: int = 0) -> bool:
    """End the TCP connection between two ends (a packed address, a port) that no process has any more; whether it did.

    It is one of our network namespace's whose program has closed it, or is dead: it still says goodbye, or makes sure
    that nothing comes late (TIME_WAIT).  With it goes the other end, if that is here too and is not the socket *ours*
    (an inode).  False where either has another owner, who may still be at what was sent last; where there is no such
    connection; or where the kernel does not destroy such (CONFIG_INET_DIAG_DESTROY; 6.12 for what has been closed:
    bac76cf89816).
    """
    with netlink.Netlink(NETLINK_SOCK_DIAG) as connection:
        both = [_find(connection, family, here, there), _find(connection, family, there, here)]
        found = [each for each in both if each]
        if not both[0] or any(inode not in (0, ours) for _, inode in found):
            return False
        try:
            for request, inode in found:
                if not inode:
                    connection.request(SOCK_DESTROY, request)
        except KernelError:
            return False
    return True


def _find(
    connection: netlink.Netlink, family: int, here: tuple[bytes, int], there: tuple[bytes, int]
) -> tuple[bytes, int] | None:
    """The request that found the connection *here* (``destroy_orphan``), and its inode: 0 without an owner."""
    ident = _INET_ID.pack(here[1], there[1], here[0], there[0], 0, _ANY_COOKIE)
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ident
    try:
        for answer in connection.ask(SOCK_DIAG_BY_FAMILY, request):
            # Where there is no such connection the kernel tells of a listener.
            if _INET_ENDS.unpack_from(answer)[:2] == (here[1], there[1]):
                return request, _INET_HEADER.unpack_from(answer)[-1]
    except KernelError:
        pass
    return None


_AF_PACKET = 17
_PACKET_REQUEST = struct.Struct("=BBHIIII")
_PACKET_HEADER = struct.Struct("=BBHIII")
_PACKET_INFO = struct.Struct("=6I")
_PACKET_MEMBERSHIP = struct.Struct("=IIHH32s")
_PACKET_RING = struct.Struct("=7I")
_PACKET_SHOW = 0x1 | 0x2 | 0x4 | 0x8
_INFO, _MCLIST, _RX_RING, _TX_RING, _FANOUT = range(5)


@dataclass(frozen=True, slots=True)
class PacketSocket:
    """A packet socket.

    ``info``: interface, version, reserve, copy threshold, time stamp, flags.  ``memberships``: (interface, count, type,
    address).  Rings are empty where there is none.
    """

    ino: int
    type: int
    protocol: int
    info: tuple[int, int, int, int, int, int]
    memberships: tuple[tuple[int, int, int, bytes], ...] = ()
    rx_ring: tuple[int, ...] = ()
    tx_ring: tuple[int, ...] = ()
    fanout: int | None = None


def read_packet() -> dict[int, PacketSocket]:
    """All packet sockets of our network namespace by inode."""
    request = _PACKET_REQUEST.pack(_AF_PACKET, 0, 0, 0, _PACKET_SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
    answers = _ask(request, "af_packet_diag")
    found = (parse_packet(answer) for answer in answers)
    return {each.ino: each for each in found}


def parse_packet(answer: bytes) -> PacketSocket:
    """One ``packet_diag_msg`` with its attributes."""
    _, kind, protocol, ino, _, _ = _PACKET_HEADER.unpack_from(answer)
    attributes = netlink.parse_attributes(answer[_PACKET_HEADER.size :])
    members = _PACKET_MEMBERSHIP.iter_unpack(attributes.get(_MCLIST, b""))
    rings = [_PACKET_RING.unpack(attributes[which]) if which in attributes else () for which in (_RX_RING, _TX_RING)]
    return PacketSocket(
        ino=ino,
        type=kind,
        protocol=protocol,
        info=_PACKET_INFO.unpack(attributes[_INFO]),
        memberships=tuple((index, count, kind, address[:length]) for index, count, kind, length, address in members),
        rx_ring=rings[0],
        tx_ring=rings[1],
        fanout=int.from_bytes(attributes[_FANOUT], "little") if _FANOUT in attributes else None,
    )
