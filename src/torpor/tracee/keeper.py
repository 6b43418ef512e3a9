"""A process that keeps descriptors from one command of ours to the next, for as long as the process lives that they are
about.

It is found by the pid and the start time of that (in an abstract socket's name, in our network namespace), and answers
root and the user who it is.  It holds nothing else: no terminal, no directory, no file.  Its death closes what it
keeps, and with that ends whatever the kernel does for these descriptors.
"""

from __future__ import annotations

import _socket as socket
import marshal
import os
import struct
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.typed import Any
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.sockets import Socket, is_one_of_us

#: What a client says: that what is known of the descriptors is true no more, or that nobody needs them any more.
_FORGET, _END = b"forget", b"end"
_PATIENCE_S = 10.0
#: Descriptors that one message may bring (SCM_MAX_FD is 253).
_AT_ONCE = 250
_ROOM = 1 << 20


class Kept:
    """What a keeper gave out: ``known``, which its maker told it, and ours from now on, ``fds``.  Close it."""

    def __init__(self, connection: Socket, known: Any, fds: list[OwnedFd]) -> None:
        self._connection = connection
        self.known, self.fds = known, fds

    def forget(self) -> None:
        """Whoever asks from now on is told that nothing is known, until there is a new keeper."""
        self._say(_FORGET)

    def end(self) -> None:
        """It ends, and has when this returns."""
        self._say(_END)

    def _say(self, word: bytes) -> None:
        with suppress(OSError):
            self._connection.send(word, socket.MSG_NOSIGNAL)
            self._connection.recv(1)

    def close(self) -> None:
        """Let go of the keeper; descriptors that were taken are the takers'."""
        self._connection.close()


def keep(root: Pid, known: Any, fds: Sequence[int], *, forgotten: Any = None) -> None:
    """Have *fds* kept, and *known* (for :mod:`marshal`) beside them, until *root* ends, by which they are found.

    *forgotten* is what is known of them once somebody has said ``forget``, and perhaps died then.
    OSError where there is a keeper of it already (``find(...).end()``), or it is gone.
    """
    from torpor.tracee.detached import spawn

    data = marshal.dumps(known), marshal.dumps(forgotten)
    with (
        Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as door,
        OwnedFd(open_pidfd(root)) as pidfd,
    ):
        door.bind(_name(root))
        door.listen(8)
        watched = pidfd.fileno()
        spawn(lambda: _serve(door, *data, list(fds), watched), (*fds, watched, door.fileno()))


def find(root: Pid) -> Kept | None:
    """What is kept under *root*; None where nobody keeps anything, or is about to end."""
    connection = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    fds: list[OwnedFd] = []
    try:
        connection.settimeout(_PATIENCE_S)
        connection.connect(_name(root))
        if is_one_of_us(connection):
            n_fds, n_bytes = struct.unpack("2Q", connection.recv(16))
            data = b""
            while len(data) < n_bytes and (part := connection.recv(_ROOM)):
                data += part
            while len(fds) < n_fds and (more := _receive(connection)):
                fds += more
            if len(data) == n_bytes and len(fds) == n_fds:
                return Kept(connection, marshal.loads(data), fds)
    except (OSError, ValueError, EOFError, struct.error):
        pass
    connection.close()
    for fd in fds:
        fd.close()
    return None


def _receive(connection: Socket) -> list[OwnedFd]:
    _, control, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(_AT_ONCE * 4), socket.MSG_CMSG_CLOEXEC)
    return [OwnedFd(fd) for _, _, content in control for (fd,) in struct.iter_unpack("=i", content)]


def _name(root: Pid) -> bytes:
    return f"\0torpor-keeper-{root}-{read_stat(root).start_time}".encode()


# -- the keeper -----------------------------------------------------------------------------------------------


def _serve(door: Socket, data: bytes, forgotten: bytes, fds: list[int], watched: int) -> None:
    import select

    poller = select.poll()
    clients: dict[int, Socket] = {}
    for fd in (door.fileno(), watched):
        poller.register(fd, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == watched:
                return
            if fd == door.fileno():
                client = _accept(door)
                if client is not None:
                    clients[client.fileno()] = client
                    poller.register(client.fileno(), select.POLLIN)
                    with suppress(OSError):
                        _tell(client, data, fds)
                continue
            word = _hear(clients[fd])
            if word == _END:
                os.dup(fd)  # open until we have ended, which is what the client waits for
                return
            if word == _FORGET:
                data = forgotten
            if word != _FORGET or not _answer(clients[fd]):
                poller.unregister(fd)
                clients.pop(fd).close()


def _accept(door: Socket) -> Socket | None:
    try:
        client = door.accept_one()
    except OSError:
        return None
    if not is_one_of_us(client):
        client.close()
        return None
    client.settimeout(_PATIENCE_S)
    return client


def _hear(client: Socket) -> bytes:
    try:
        return client.recv(16)
    except OSError:
        return b""


def _answer(client: Socket) -> bool:
    try:
        client.send(b".", socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def _tell(client: Socket, data: bytes, fds: list[int]) -> None:
    client.send(struct.pack("2Q", len(fds), len(data)), socket.MSG_NOSIGNAL)
    for at in range(0, len(data), _ROOM // 8):
        client.send(data[at : at + _ROOM // 8], socket.MSG_NOSIGNAL)
    for at in range(0, len(fds), _AT_ONCE):
        part = fds[at : at + _AT_ONCE]
        rights = struct.pack(f"={len(part)}i", *part)
        client.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)
