"""Urgent data (MSG_OOB) of TCP and unix stream sockets that waits to be read, or whose mark does.

Kernel view
    POLLPRI while the byte waits.  A TCP socket's reads and SIOCINQ end at the mark, though the byte was read, until
    they have passed it; with SO_OOBINLINE, SIOCINQ tells of everything.
Image
    None: the dump is refused, for the byte would lose its mark, and TCP what is behind that.
Restore
    None.
Limits
    While a TCP socket is asked that has something to read, SO_OOBINLINE of it is set; a caretaker sets it right if we
    are killed in that instant.
"""

from __future__ import annotations

import _socket as socket
import fcntl
import select

from torpor.base.errors import RefusedError
from torpor.kernel.sockets import Socket
from torpor.kernel.uapi.sockios import SIOCATMARK
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import tcp_repair
from torpor.objects.session import DumpContext
from torpor.tracee import caretaker

_INLINE = (socket.SOL_SOCKET, socket.SO_OOBINLINE)


def check(file: OpenFile, connection: Socket) -> int:
    """RefusedError if an urgent byte waits in the stream *connection*, which *file* is; else what poll(2) tells."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLPRI)
    events = sum(event for _, event in poller.poll(0))
    if events & select.POLLPRI:
        raise _refusal(file)
    return events


def check_tcp(file: OpenFile, connection: Socket, context: DumpContext) -> int:
    """RefusedError if an urgent byte, or its mark, waits in a TCP socket; else what poll(2) tells."""
    events = check(file, connection)
    if any(fcntl.ioctl(connection.fileno(), SIOCATMARK, bytes(4))):
        raise _refusal(file)
    length = tcp_repair.n_received(connection)
    if length and not connection.getsockopt(*_INLINE):
        keeper = context.outside.caretaker
        keys = keeper.add([caretaker.option(connection.fileno(), *_INLINE, 0)])
        try:
            connection.setsockopt(*_INLINE, 1)
            everything = tcp_repair.n_received(connection)
        finally:
            connection.setsockopt(*_INLINE, 0)
            keeper.drop(keys)
        # Something may have come meanwhile; then it is seen without, too.
        if everything > length and tcp_repair.n_received(connection) == length:
            raise _refusal(file)
    return events


def _refusal(file: OpenFile) -> RefusedError:
    return file.refuse("urgent data (MSG_OOB) waits to be read", hint="try again when it has been read")
