"""One client's connection: requests in, responses out, a descriptor along with one where it has to be.

Messages are ``criu_req`` and ``criu_resp``, each a packet of its own (SOCK_SEQPACKET).
"""

from __future__ import annotations

import _socket as socket
import os
import select
import struct

from torpor.base.errors import NotPermittedError, TorporError
from torpor.base.fds import OwnedFd
from torpor.base.typed import TYPE_CHECKING
from torpor.images import messages as m
from torpor.images._registry import decode_errors

if TYPE_CHECKING:
    from torpor.rpc.peer import Peer

#: A request longer than this is nobody's: the longest options that runtimes send are some tens of kilobytes.
_LONGEST = 4 << 20


class ClientError(TorporError):
    """The client went away, or said what is no message."""


class Channel:
    """A connected socket, ours to close.

    *peer*: who is at the other end, where that is not simply whoever has started us.
    """

    def __init__(self, fd: int, peer: Peer | None = None) -> None:
        self._socket = socket.socket(fileno=fd)
        self._peer = peer
        self._held: list[OwnedFd] = []

    def peer_pid(self) -> int:
        """The client's pid, as the kernel noted it when the connection was made."""
        if self._peer is not None:
            return self._peer.pid
        pid, _, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    def place_of(self, number: int) -> str:
        """A path to the directory behind descriptor *number* of the client's.  NotPermittedError."""
        if self._peer is None:
            return f"/proc/{self.peer_pid()}/fd/{number}"
        self._held.append(self._peer.open_directory(number))
        return f"/proc/{os.getpid()}/fd/{self._held[-1].fileno()}"

    def open_for_writing(self, number: int) -> int:
        """What descriptor *number* of the client's is open for writing, as one of ours.  NotPermittedError."""
        pid = self.peer_pid()
        try:
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise NotPermittedError(
                f"the client's descriptor {number} cannot be written to: {error.strerror}"
            ) from None
        if self._peer is not None and not self._peer.lives():
            os.close(fd)
            raise NotPermittedError("the client has ended")
        return fd

    def wait(self, timeout_s: float) -> bool:
        """Until there is something to receive; False where nothing has come in that time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def receive(self) -> m.criu_req | None:
        """The next request; None once the client has gone.  ClientError for a packet that is no request."""
        try:
            size = self._socket.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
            if size > _LONGEST:
                raise ClientError(f"a request of {size} bytes is too long")
            packet = self._socket.recv(size)
        except ConnectionError:
            return None
        if not packet:
            return None
        try:
            return m.criu_req.FromString(packet)
        except decode_errors() as error:
            raise ClientError(f"the request is no criu_req: {error}") from error

    def send(self, response: m.criu_resp, fd: int = -1) -> None:
        """Answer; with *fd*, which stays the caller's, the client gets a copy of that descriptor.

        ClientError when nobody is there.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))] if fd >= 0 else []
        try:
            self._socket.sendmsg([response.SerializeToString()], rights, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ClientError(f"the client does not take an answer: {error.strerror}") from error

    def close(self) -> None:
        """Close the connection to the client."""
        self._socket.close()
