"""Connections that programs have closed while the last bytes are still on their way: they get there before the lock.

Kernel view
    Rows of sock_diag(7) without an inode, in FIN_WAIT1, LAST_ACK or CLOSING: the kernel delivers for a program that has
    gone on, or is dead.  No descriptor leads to them, so that nobody can carry them.
Image
    None.
Restore
    None: whoever reads there would wait for the rest for ever.
Limits
    Where the tree ends and its network namespace with it; elsewhere the kernel goes on delivering.  For as long as it
    gets on, and no longer than ``_LIMIT_S``: what the other end does not take by then is told as lost.
    Those of MPTCP are not looked for.  Of a connection that was closed the table of TCP has the subflows, established
    and with its inode, until the other end has closed it as well, whether anything is left to deliver or not; the table
    of MPTCP knows, but is a module (``mptcp_diag``) that the kernel would load when it is asked.  Nor are SCTP's.
"""

from __future__ import annotations

import _socket as socket
import time
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.kernel import interrupts
from torpor.kernel.sock_diag import Goodbye, read_goodbyes

_LOOK_EVERY_S = 0.0005
#: How long nothing may be acknowledged before it is given up: two round trips, and no less or more than this.
_PATIENCE_S, _MOST_PATIENCE_S = 0.05, 0.2
_LIMIT_S = 0.5


def read() -> list[Goodbye]:
    """Those of our network namespace; none where the kernel does not tell."""
    try:
        return read_goodbyes()
    except (KernelError, OSError) as error:
        log.debug(f"nobody can tell which closed connections still deliver: {error}")
        return []


def wait(left: Sequence[Goodbye]) -> None:
    """Wait until all are delivered, of which *left* were found, in our network namespace."""
    began = moved = now = time.monotonic()
    n_left = sum(each.n_left for each in left)
    log.debug(f"{len(left)} closed connections still deliver {n_left} bytes")
    while left:
        rtt_s = max(each.rtt_us for each in left) / 1e6
        if now - moved > min(max(2 * rtt_s, _PATIENCE_S), _MOST_PATIENCE_S) or now - began > _LIMIT_S:
            _tell(left)
            return
        interrupts.look()
        time.sleep(_LOOK_EVERY_S)
        now, left = time.monotonic(), read()
        n_now = sum(each.n_left for each in left)
        if n_now < n_left:
            moved, n_left = now, n_now


def _tell(left: Sequence[Goodbye]) -> None:
    first, n_left = left[0], sum(each.n_left for each in left)
    log.warn(
        f"{len(left)} TCP connections that programs have closed still had {n_left} bytes to deliver, the first from "
        f"{_text(first.here)} to {_text(first.there)}, which does not take them: they are lost with their network"
    )


def _text(end: tuple[bytes, int]) -> str:
    address, port = end
    name = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
    return f"{name}:{port}" if len(address) == 4 else f"[{name}]:{port}"
