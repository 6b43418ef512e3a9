"""UDP, UDP-Lite, raw and ping sockets: whatever is not TCP.

Kernel view
    A socket is connected when it has a peer.  The directions that are shut down are in the table of sock_diag(7),
    which is read only for UDP.
Image
    ``inet_sk_entry``, as of other sockets of IP: its state says whether there is a peer, ``shutdown`` the directions.
Restore
    With those others (``inet``): bound, connected, and shut down last of all.
Limits
    Datagrams that wait to be read: ``udp_queue``; those of raw and ping sockets are dropped, as the network might have
    done: warned about.  Corked data are refused; what was begun with MSG_MORE alone cannot be told from a datagram on
    its way, and is lost with a warning.
"""

from __future__ import annotations

import _socket as socket
import fcntl
import select
import termios
from functools import partial

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.images import messages as m
from torpor.kernel import sock_diag
from torpor.kernel.sockets import get_int
from torpor.kernel.uapi.sockios import SIOCOUTQ
from torpor.kernel.uapi.udp import UDP_CORK, UDP_ENCAP, UDP_ENCAP_L2TPINUDP
from torpor.objects.files.model import OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket import shutdown, udp_queue, waiting_errors
from torpor.objects.session import DumpContext

_UDPS = (socket.IPPROTO_UDP, 136)
_ESTABLISHED = 1


class Tables:
    """sock_diag's tables by family and protocol, each read once."""

    def __init__(self, context: DumpContext) -> None:
        self._networks = context.part(Networks)
        self._tables: dict[tuple[int, int, int], dict[int, sock_diag.InetSocket]] = {}

    def find(self, sk: m.inet_sk_entry) -> sock_diag.InetSocket | None:
        """The socket's row; None where the kernel has none (an unbound socket, a protocol without a table)."""
        key = (sk.ns_id, sk.family, sk.proto)
        if key not in self._tables:
            try:
                read = partial(sock_diag.read_inet, sk.family, sk.proto)
                self._tables[key] = self._networks.inside(sk.ns_id, read)
            except KernelError as error:
                # 7.1 removed UDP-Lite's table.
                log.debug(f"no table of sockets for {key}: {error}")
                self._tables[key] = {}
        return self._tables[key].get(sk.ino)


def check(file: OpenFile, protocol: int) -> None:
    """Refuse sockets whose datagrams the kernel takes for itself (GTP, RxRPC, ovpn): nobody can have it do so again."""
    if protocol != socket.IPPROTO_UDP:
        return
    kind = get_int(file.fd, protocol, UDP_ENCAP)
    if kind > UDP_ENCAP_L2TPINUDP:
        raise file.refuse(
            f"a UDP socket whose datagrams the kernel takes for a tunnel (UDP_ENCAP {kind})",
            hint="take the tunnel down for the checkpoint",
        )


def dump(file: OpenFile, sk: m.inet_sk_entry, context: DumpContext) -> None:
    """Fill in the state and the directions that are shut down; refuses corked data."""
    if sk.dst_port or any(sk.dst_addr):
        sk.state = _ESTABLISHED
    if sk.type == socket.SOCK_DGRAM and sk.proto in _UDPS:
        if get_int(file.fd, sk.proto, UDP_CORK):
            raise file.refuse("a corked UDP socket", hint="try again when it has sent its datagram")
        if _ask(file, SIOCOUTQ):
            log.warn(f"{file.describe()}: a datagram begun with MSG_MORE, if one waits for its end there, is lost")
        row = context.part(Tables).find(sk)
        # CRIU takes a value of 0 for one that cannot be.
        if bits := row.shutdown & 3 if row else shutdown.poll_bits(file.fd):
            sk.shutdown = bits
        events = udp_queue.events_of(file.fd)
        waiting_errors.tell(file, events, context)
        if events & select.POLLIN:
            udp_queue.dump(file, sk.id, sk, context)
    elif _ask(file, termios.FIONREAD):
        log.warn(f"{file.describe()}: unread datagrams are dropped")


def _ask(file: OpenFile, command: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(file.fd, command, bytes(4)), "little")
    except OSError:
        return 0  # ping sockets do not tell
