"""The last touch on restored sockets: flags, options, shutdown.

It comes when everything is bound and all queues are filled, since it takes away what those need: large buffers,
SO_REUSEADDR, both directions.
"""

from __future__ import annotations

import os

from torpor.images import messages as m
from torpor.kernel.idmap import IdMaps
from torpor.kernel.sockets import Socket
from torpor.objects.files import status_flags
from torpor.objects.files.socket import options, shutdown

SocketEntry = m.unix_sk_entry | m.inet_sk_entry | m.netlink_sk_entry | m.packet_sock_entry


def finish(connection: Socket, sk: SocketEntry, what: str, idmaps: IdMaps, *, shut: int = 0) -> None:
    """Make the socket as *sk* says; *shut* are the directions that are shut down."""
    options.restore(connection, sk.opts, what, idmaps)
    options.restore_reuse(connection, sk.opts, what)
    shutdown.restore(connection, shut, what)
    # What has waited to be filled must not wait any longer.
    os.set_blocking(connection.fileno(), True)
    status_flags.restore(connection.fileno(), sk.flags)
