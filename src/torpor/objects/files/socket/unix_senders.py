"""Who sends again what waits in unix sockets, so that each message comes from whom it came.

recvmsg(2) tells the name of a datagram's sender as the sending socket has it: the message is sent by the restored
socket of that name where there is one, else (it is closed, or outside of the tree) by one that gets the name for the
moment and of which nothing but the message is left.
"""

from __future__ import annotations

import _socket as socket
from collections.abc import Callable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.records import dataclass
from torpor.kernel.sockets import Socket
from torpor.objects.files.socket.make import make_socket
from torpor.objects.files.socket.unix_bind import Namer, address_by
from torpor.objects.files.socket.unix_name import Name
from torpor.objects.session import RestoreContext


@dataclass(frozen=True, slots=True)
class Receiver:
    """A socket with a queue: by which id and name it is bound, and in which network namespace."""

    ident: int
    name: Name
    ns_id: int


class Senders:
    """The senders of one restore: *named* finds a restored datagram socket by its name."""

    def __init__(self, context: RestoreContext, namer: Namer, named: Callable[[bytes], Socket | None]) -> None:
        self._context = context
        self._namer = namer
        self._named = named
        self._made: dict[tuple[bytes, int], Socket | None] = {}
        #: The file of the receiver being filled, by which it is sent to.
        self._file: OwnedFd | None = None

    def to(self, receiver: Receiver, connected: Socket | None) -> Callable[[bytes], tuple[Socket, bytes | None]]:
        """For the address of a sender: by whom to send to *receiver*, and to which address (None: it is connected).

        *connected* is connected to it and takes the place of senders without a name.
        """
        own = connected.getsockname() if connected is not None else b""
        plain = own.encode(errors="surrogateescape") if isinstance(own, str) else own

        def find(text: bytes) -> tuple[Socket, bytes | None]:
            if connected is not None and (text == plain or not receiver.name.text):
                if text != plain:
                    log.warn(f"unix socket {receiver.ident}: a message comes from another sender than before")
                return connected, None
            return self._sender(text, receiver.ns_id), self._address_of(receiver)

        return find

    def _address_of(self, receiver: Receiver) -> bytes:
        if not receiver.name.is_path:
            return receiver.name.text
        if self._file is None:
            self._file = self._namer.file_of(receiver.ident, receiver.name)
        return address_by(self._file.fileno())

    def filled(self) -> None:
        """The receiver has all of its messages."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sender(self, text: bytes, ns_id: int) -> Socket:
        found = self._named(text) if text else None
        if found is None and (text, ns_id) not in self._made:
            self._made[text, ns_id] = self._make(text, ns_id)
        made = found or self._made.get((text, ns_id))
        return made if made is not None else self._sender(b"", ns_id)

    def _make(self, text: bytes, ns_id: int) -> Socket | None:
        made = make_socket(self._context, socket.AF_UNIX, socket.SOCK_DGRAM, 0, ns_id)
        if text:
            try:
                self._namer.bind_apart(0, made, Name(text, "/", is_deleted=True, mode=0, uid=0, gid=0))
            except RestoreError as error:
                log.warn(f"a message that waits loses its sender's address: {error}")
                made.close()
                return None
        return made

    def close(self) -> None:
        """Close those that were made for the moment."""
        self.filled()
        for made in self._made.values():
            if made is not None:
                made.close()
        self._made.clear()
