"""Errors that wait for a socket's program: SO_ERROR, and messages of an error queue (MSG_ERRQUEUE).

Kernel view
    POLLERR, by which nothing is taken.  Which error it is tells only who takes it.
Image
    None, but for TCP connections that have ended (``tcp_ended``).
Restore
    None: that it is not told any more is a warning of the dump.
Limits
    Seen where poll(2) is asked in any case: of UDP, unix sockets that may have something to read, TCP connections.
"""

from __future__ import annotations

import select

from torpor.base import log
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext


def tell(file: OpenFile, events: int, context: DumpContext) -> None:
    """Warn, once for each socket, if *events*, poll(2)'s of *file*, have an error that waits."""
    if events & select.POLLERR and context.once(("waiting error", file.stat.st_ino)):
        log.warn(
            f"{file.describe()}: an error that waits in the socket (SO_ERROR, MSG_ERRQUEUE) is not told after a restore"
        )
