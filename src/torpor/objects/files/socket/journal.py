"""Connections to systemd's journal, which services have for their standard output.

Kernel view
    A stream socket whose peer, outside of the tree, was accepted under the journal's name.
Image
    ``torpor_journal``: the lines that begin such a connection: identifier, unit, priority, and four switches.  The
    journal keeps them in ``/run/systemd/journal/streams/DEV:INODE``, the inode being that of its own end.
Restore
    A new connection, which begins with the same lines.
Limits
    ``$JOURNAL_STREAM``, by which a program can tell that it talks to the journal, names the old connection.
"""

from __future__ import annotations

import _socket as socket

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.sockets import Socket
from torpor.objects.files.model import OpenFile

PATH = "/run/systemd/journal/stdout"
_STREAMS = "/run/systemd/journal/streams"
#: What the journal calls the lines, in their order, and what they are where it does not say.
_LINES = (
    ("IDENTIFIER", ""),
    ("UNIT", ""),
    ("PRIORITY", "30"),  # LOG_DAEMON | LOG_INFO, as the service manager has it
    ("LEVEL_PREFIX", "1"),
    ("FORWARD_TO_SYSLOG", "0"),
    ("FORWARD_TO_KMSG", "0"),
    ("FORWARD_TO_CONSOLE", "0"),
)
_N_TEXTS = 2
_MAX_PRIORITY = 191  # LOG_LOCAL7 | LOG_DEBUG
_MAX_TEXT = 256


def is_journal(name: bytes, kind: int) -> bool:
    """Whether a peer of this name and type is the journal."""
    return kind == socket.SOCK_STREAM and name.rstrip(b"\0") == PATH.encode()


def dump(file: OpenFile, sk: m.unix_sk_entry) -> None:
    """Fill in the lines."""
    found = {}
    try:
        with open(f"{_STREAMS}/{file.stat.st_dev}:{sk.peer}") as lines:
            found = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    except OSError:
        pass  # it has forgotten, or another user's must not be read: what any connection begins with
    sk.torpor_journal[:] = [found.get(key, default) for key, default in _LINES]


def connect(sk: m.unix_sk_entry, connection: Socket, what: str) -> None:
    """Have a new socket in the place of one that was connected to the journal."""
    header = "".join(f"{line}\n" for line in _checked(list(sk.torpor_journal), what))
    try:
        connection.connect(PATH)
        connection.sendall(header.encode())
    except OSError as error:
        raise RestoreError(
            f"{what} was connected to the journal, which cannot be reached here ({PATH}: {error.strerror})",
            hint=f"give the restore a connected socket for it: --inherit-fd fd[N]:socket:[{sk.ino}]",
        ) from error


def _checked(lines: list[str], what: str) -> list[str]:
    """An image is a stranger's: two texts of a line each, a priority, four switches, or nothing at all is sent."""
    texts, numbers = lines[:_N_TEXTS], lines[_N_TEXTS:]
    good = len(lines) == len(_LINES) and all(len(text) <= _MAX_TEXT and text.isprintable() for text in texts)
    good = good and numbers[0].isascii() and numbers[0].isdigit() and int(numbers[0]) <= _MAX_PRIORITY
    if not good or any(number not in ("0", "1") for number in numbers[1:]):
        raise ImageError(f"files.img: {what}: a connection to the journal does not begin with {lines!r:.200}")
    return lines
