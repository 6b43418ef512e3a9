"""Datagram sockets that lead to somebody who never answers: syslog, the journal, the service manager (sd_notify(3)).

Kernel view
    A datagram socket whose peer, outside of the tree, has one of their names.
Image
    As of any such peer (``unix_peers``).
Restore
    It is connected to the name again without being asked for (--ext-unix-sk): nobody misses a connection.
Limits
    What was sent, and is not yet read, stays with them.
"""

from __future__ import annotations

import _socket as socket

#: syslog(3)'s, and the journal's for it; the journal's own; the machine's service manager.
_NAMES = (b"/dev/log", b"/run/systemd/journal/dev-log", b"/run/systemd/journal/socket", b"/run/systemd/notify")
#: A user's service manager: the number is between them.
_BEFORE, _BEHIND = b"/run/user/", b"/systemd/notify"


def leads_to(name: bytes, kind: int) -> bool:
    """Whether a peer of this name and type is one of them."""
    name = name.rstrip(b"\0")
    of_user = name.startswith(_BEFORE) and name.endswith(_BEHIND) and name[len(_BEFORE) : -len(_BEHIND)].isdigit()
    return kind == socket.SOCK_DGRAM and (name in _NAMES or of_user)
