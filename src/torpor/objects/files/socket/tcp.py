"""TCP and MPTCP sockets: closed, listening, and what becomes of connections.

Kernel view
    TCP_INFO: the state; of a listener, ``tcpi_unacked`` connections wait and ``tcpi_sacked`` may wait.
Image
    ``inet_sk_entry.state``, ``backlog``; ``tcp_stream`` for connections.
Restore
    A connection that was dumped with --tcp-close comes back as a socket that has been shut down.
Limits
    Connections without --tcp-close or --tcp-established are refused, and those with TLS in the kernel, which keeps the
    keys; so are those that wait to be accepted (their clients: ``left_clients``).  Nothing can be had of these but by
    accepting them, which nobody could take back, and into the queue of a listener leads a new handshake alone, with
    other sequence numbers than the client has.  So a dump waits until they are accepted: where a network namespace is
    locked as a whole, with nobody new let in and as long as the server gets on; elsewhere for a second.
"""

from __future__ import annotations

import _socket as socket
import os
import struct

from torpor.base import log
from torpor.base.errors import PassingError, RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import messages as m
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.uapi.inet import IPPROTO_MPTCP
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import (
    left_clients,
    listeners,
    net_lock,
    shutdown,
    tcp_ended,
    tcp_keys,
    tcp_repair,
    tcp_stream,
)
from torpor.objects.session import DumpContext, DumpStage, RestoreContext

TCP_CLOSE, TCP_LISTEN = tcp_repair.CLOSE, tcp_repair.LISTEN
_HINT = "use --tcp-close to have it closed, or --tcp-established to carry it"


def dump(file: OpenFile, sk: m.inet_sk_entry, context: DumpContext) -> None:
    """Fill in state, backlog and shutdown; a connection's stream."""
    with Borrowed(file.fd) as connection:
        info = tcp_repair.info(connection)
    sk.state = info[0]
    if sk.state == TCP_LISTEN:
        n_waiting, sk.backlog = struct.unpack_from("=24xII", info)
        if n_waiting and context.outside.was_at_rest:
            log.info(f"{file.describe()}: {n_waiting} TCP connections have come since it was stopped")
        elif n_waiting and not (context.policies.network.tcp_close or context.policies.network.skip_in_flight):
            _refuse_waiting(file, n_waiting, context)
        if sk.proto == socket.IPPROTO_TCP and context.outside.lock_method != net_lock.SKIP:
            left_clients.dump(sk)
        return
    if sk.state == TCP_CLOSE:
        bits = shutdown.poll_bits(file.fd)
        # A new socket hangs up without having been shut down; reading gives an end of file only afterwards.
        if bits & shutdown.RECEIVE:
            sk.shutdown = shutdown.RECEIVE
        if sk.dst_port and sk.src_port and sk.proto == socket.IPPROTO_TCP:
            tcp_ended.dump(file, sk, context)
        sk.dst_port = 0
        del sk.dst_addr[:]
        sk.dst_addr.extend([0] * len(sk.src_addr))
        return
    _check_connection(file, sk.proto, sk.state, sk.dst_port, context)
    if not context.policies.network.tcp_close:
        context.part(tcp_stream.Connections).add(file, sk)


def check(file: OpenFile, sk: m.inet_sk_entry, context: DumpContext) -> None:
    """Refuse connections that the policy has not.  Those that wait to be accepted may have been when it counts.

    *sk* has the addresses.
    """
    policy = context.policies.network
    with Borrowed(file.fd) as connection:
        state = tcp_repair.state(connection)
    is_tabled = file.stat.st_ino in context.part(listeners.Listening).inodes
    if state == TCP_LISTEN and not is_tabled and not policy.tcp_close:
        context.noticed.restless.append(_Listener(os.dup(file.fd)))
    if state != TCP_CLOSE and sk.proto == socket.IPPROTO_TCP and not (sk.dst_port and policy.tcp_close):
        context.part(tcp_keys.Signed).add(file, sk.family)
    if state == TCP_LISTEN and not (policy.tcp_close or policy.tcp_established):
        context.noticed.ports.add(sk.src_port)
    if state in (TCP_LISTEN, TCP_CLOSE):
        return
    try:
        _check_connection(file, sk.proto, state, sk.dst_port, context)
    except PassingError:
        if not policy.tcp_established:
            context.noticed.peer_ports.add(sk.dst_port)
        raise
    if not policy.tcp_close:
        with Borrowed(file.fd) as connection:
            if sk.proto == socket.IPPROTO_TCP and not tcp_repair.may_begin(connection):
                raise file.refuse(
                    f"a TCP connection to port {sk.dst_port} cannot be read without CAP_NET_ADMIN",
                    hint="run as root, or with that capability, or have connections closed (--tcp-close)",
                )
        context.part(_Met).add(sk)


class _Listener:
    """A listener of the running tree."""

    def __init__(self, fd: int) -> None:
        self._fd = OwnedFd(fd)

    def is_waited_for(self) -> bool:
        """Whether a connection waits to be accepted: a moment later it is, as a rule."""
        with Borrowed(self._fd.fileno()) as connection:
            return bool(struct.unpack_from("=24xI", tcp_repair.info(connection))[0])


class _Met:
    """The connections that checks before the freeze have met."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._all: list[net_lock.Ends] = []
        context.at(DumpStage.KNOWN, self._check)
        context.noticed.marks.add("connections")

    def add(self, sk: m.inet_sk_entry) -> None:
        """Note a connection, for the check of the stage KNOWN: whether one leads outside of the tree."""
        self._all.append(net_lock.ends_of(sk))

    def _check(self) -> None:
        known = set(self._all)
        if any(each.reversed not in known for each in self._all):
            net_lock.check(self._context.policies.network.network_lock)


def _check_connection(file: OpenFile, protocol: int, state: int, port: int, context: DumpContext) -> None:
    if context.policies.network.tcp_close:
        return
    peer = f"a TCP connection to port {port}"
    if protocol == socket.IPPROTO_TCP:
        with Borrowed(file.fd) as connection:
            ulp = tcp_repair.upper_layer(connection)
        if ulp:
            raise file.refuse(f"{peer} with {ulp} in the kernel", hint="have the program do that itself")
    if context.policies.network.tcp_established and protocol == socket.IPPROTO_TCP and state in tcp_stream.CARRIED:
        return
    if protocol == IPPROTO_MPTCP:
        raise file.refuse(f"{peer} over MPTCP", hint="use --tcp-close; GODEBUG=multipathtcp=0 keeps Go from MPTCP")
    raise PassingError(f"{file.describe()}: {peer}", hint=_HINT)


def _refuse_waiting(file: OpenFile, n_waiting: int, context: DumpContext) -> None:
    raise file.refuse(
        f"{n_waiting} TCP connections wait to be accepted, which the program does not do in time",
        hint="try again when it has, or use --skip-in-flight, with which their clients are told that they are gone",
    )


def is_connection(sk: m.inet_sk_entry) -> bool:
    """Whether the image is one of a connection, even if it has ended."""
    return bool(sk.dst_port) or tcp_ended.is_ended(sk)


def restore_connection(connection: Socket, sk: m.inet_sk_entry, context: RestoreContext, what: str) -> None:
    """Make the connection again, or with --tcp-close a socket that was connected once."""
    if tcp_ended.is_ended(sk):
        if not tcp_ended.restore(connection, sk, context, what):
            log.info(f"{what}: its TCP connection has ended")
    elif context.policies.network.tcp_close:
        log.info(f"{what}: TCP connection closed")
    elif context.policies.network.tcp_established:
        tcp_stream.restore(connection, sk, context, what)
    else:
        raise RestoreError(f"{what} is a TCP connection to port {sk.dst_port}", hint=_HINT)


def is_carried(sk: m.inet_sk_entry, context: RestoreContext) -> bool:
    """Whether it is restored as a connection, not as what is left of one."""
    return is_connection(sk) and not tcp_ended.is_ended(sk) and not context.policies.network.tcp_close


def shut_of(sk: m.inet_sk_entry) -> int:
    """The directions to shut down: all of a connection that is not carried."""
    return shutdown.BOTH if sk.dst_port else sk.shutdown
