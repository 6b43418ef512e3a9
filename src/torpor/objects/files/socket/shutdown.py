"""Directions of a socket that are shut down.

Kernel view
    Bits: 1 receiving, 2 sending.  Tables of sock_diag(7) have them; poll(2) shows receiving, and both together.
Image
    ``sk_shutdown``, whose values are those bits.
Restore
    shutdown(2), when all queues are filled.  A socket that is not connected answers ENOTCONN, and remembers.
Limits
    Where there is no table to look into, sending alone is not seen.
"""

from __future__ import annotations

import _socket as socket
import select

from torpor.base.errors import RestoreError
from torpor.kernel.sockets import Socket

RECEIVE, SEND, BOTH = 1, 2, 3
_HOW = {RECEIVE: socket.SHUT_RD, SEND: socket.SHUT_WR, BOTH: socket.SHUT_RDWR}


def poll_bits(fd: int) -> int:
    """What poll(2) tells; SEND alone is not seen."""
    poller = select.poll()
    poller.register(fd, select.POLLRDHUP | select.POLLHUP)
    events = dict(poller.poll(0)).get(fd, 0)
    if events & select.POLLHUP and events & select.POLLRDHUP:
        return BOTH
    return RECEIVE if events & select.POLLRDHUP else 0


def restore(connection: Socket, bits: int, what: str) -> None:
    """Shut those directions down; a socket that is not connected says so, but remembers."""
    if bits not in _HOW:
        return
    try:
        connection.shutdown(_HOW[bits])
    except OSError as error:
        if error.errno != 107:  # ENOTCONN
            raise RestoreError(f"{what} cannot be shut down: {error.strerror}") from error
