"""The restore's side of memory that comes later: each process's userfaultfd goes to whoever brings its pages.

CRIU's words, by a unix stream socket: the pid in the images and then, by SCM_RIGHTS with one byte, the descriptor; the
negative pid of a process without memory of its own; at last that all run.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
import time

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import TreePid
from torpor.kernel.sockets import Socket

SOCKET_NAME = "lazy-pages.socket"
WORD = struct.Struct("=i")
#: All run.
RESTORED = 0x52535446
#: Nothing is done yet while the other end is waited for.
_COMES_WITHIN_S, _PAUSE_S = 5.0, 0.02


class Announcing(Closing):
    """``Later`` of a restore: hands the memory to whoever is at the other end of *link*, which becomes ours."""

    def __init__(self, link: Socket, who: str, hint: str) -> None:
        self._link, self._who, self._hint = link, who, hint

    def begin(self, pid: TreePid, faults: OwnedFd) -> None:
        """TorporError where nobody is there any more, as from the other two."""
        with faults:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", faults.fileno()))]
            self._send(WORD.pack(pid))
            self._send(b"\0", rights)

    def nothing(self, pid: TreePid) -> None:
        self._send(WORD.pack(-pid))

    def restored(self) -> None:
        self._send(WORD.pack(RESTORED))

    def _send(self, data: bytes, rights: list[tuple[int, int, bytes]] | None = None) -> None:
        try:
            self._link.sendmsg([data], rights or [], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise TorporError(f"{self._who} has gone: {error.strerror}", hint=self._hint) from error

    def close(self) -> None:
        self._link.close()


def to_daemon(directory: str = ".") -> Announcing:
    """To the ``criu lazy-pages`` that listens in the work directory, or will within some seconds.  TorporError.

    Whoever starts both at once (a container engine) cannot know which of them comes first.
    """
    link = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    place = os.path.join(directory, SOCKET_NAME)
    try:
        _connect(link, place)
    except OSError as error:
        link.close()
        raise TorporError(
            f"nobody is there to bring pages later ({place}: {error.strerror})",
            hint="start `criu lazy-pages` with the same directories first",
        ) from error
    except BaseException:
        link.close()
        raise
    return Announcing(link, "criu lazy-pages", "its log says why")


def _connect(link: Socket, place: str) -> None:
    """OSError.  A socket that nobody has (any more) may be bound anew, and one is bound before it listens."""
    deadline = time.monotonic() + _COMES_WITHIN_S
    is_said = False
    while True:
        try:
            link.connect(place)
            return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED) or time.monotonic() > deadline:
                raise
        if not is_said:
            log.info(f"criu lazy-pages is not there yet ({place}): it is waited for")
            is_said = True
        time.sleep(_PAUSE_S)
