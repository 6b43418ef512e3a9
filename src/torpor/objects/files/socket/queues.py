"""What waits to be read in unix sockets: messages, descriptors in flight, credentials.

Kernel view
    recvmsg(2) with MSG_PEEK takes nothing away; SO_PEEK_OFF makes it go on behind what was seen.  Peeked SCM_RIGHTS
    arrive in our process.
Image
    ``sk_packet_entry`` with the bytes, one per message (per stretch of a stream).
Restore
    Messages are sent again by the socket at the other end, once every file that may lie in a queue can be opened.
Limits
    While messages are peeked at, SO_PEEK_OFF of the target's socket is in use; a caretaker sets it right if we are
    killed in that instant.  Not done for a stream that one look shows whole.
    Of credentials in a pid namespace of the tree's own, the pid of a process that is dead is lost (0).
"""

from __future__ import annotations

import _socket as socket
import errno
import mmap
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import Entry
from torpor.images.store import iter_entries
from torpor.kernel.arch import nr
from torpor.kernel.sockets import Borrowed, Socket
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.socket import SCM_CREDENTIALS, SCM_RIGHTS, SO_PEEK_OFF
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import peer_cred, urgent, waiting_errors
from torpor.objects.files.socket.options import widen
from torpor.objects.files.socket.peer_actors import Actors
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee.caretaker import option

_SCM_SECURITY, _SCM_PIDFD = 3, 4
_CONTROL_ROOM = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12) + 512
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_NO_FD = (1 << 64) - 1
_FIRST_ROOM = 1 << 16
_MAX_ROOM = 1 << 30


@dataclass(slots=True)
class Message:
    """One message: bytes, and what came with it."""

    data: bytes
    rights: list[OwnedFd] = field(default_factory=list)
    credentials: tuple[int, int, int] | None = None
    sender: bytes = b""
    is_cut: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but bytes."""
        return not self.rights and self.credentials is None


def dump(file: OpenFile, file_id: int, kind: int, n_unread: int, context: DumpContext) -> None:
    """Write what waits in the socket.  *n_unread* bytes do; of a datagram socket the first message's."""
    if kind != socket.SOCK_DGRAM and not n_unread:
        return
    image = context.image("SK_QUEUES")
    with Borrowed(file.fd) as connection:
        if kind == socket.SOCK_STREAM:
            urgent.check(file, connection)
        messages = _read(file, connection, kind, n_unread, context)
    for message in messages:
        packet = m.sk_packet_entry(id_for=file_id, length=len(message.data))
        if message.rights:
            # The place in the image is taken after the files, which may hold queues of their own.
            rights = [context.files.add_in_flight(file.process, fd) for fd in message.rights]
            packet.scm.add(type=SCM_RIGHTS, rights=rights)
        if message.credentials is not None:
            pid, user, group = message.credentials
            packet.torpor_uid, packet.torpor_gid = file.process.idmaps.inside(user, group)
            packet.torpor_pid = peer_cred.pid_inside(file, Pid(pid), context)
        if message.sender:
            packet.torpor_from = message.sender
        image.add(Entry(packet, message.data))


@contextmanager
def peeking(connection: Socket, context: DumpContext) -> Iterator[None]:
    """Within the block SO_PEEK_OFF begins at 0 and is ours to change; whatever happens it is as before afterwards."""
    before = connection.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
    keeper = context.outside.caretaker
    keys = keeper.add([option(connection.fileno(), socket.SOL_SOCKET, SO_PEEK_OFF, before)])
    try:
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        yield
    finally:
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, before)
        keeper.drop(keys)


def _read(file: OpenFile, connection: Socket, kind: int, n_unread: int, context: DumpContext) -> list[Message]:
    events = _events_of(connection)
    waiting_errors.tell(file, events, context)
    if not events:
        return []
    if kind == socket.SOCK_STREAM and connection.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) < 0:
        first = _peek(file, connection, n_unread + 1)
        if first is None:
            return []
        if first.is_plain and len(first.data) == n_unread:
            return [first]
    with peeking(connection, context):
        return _read_on(file, connection, kind, n_unread)


def _events_of(connection: Socket) -> int:
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return sum(events for _, events in poller.poll(0))


def _read_on(file: OpenFile, connection: Socket, kind: int, n_unread: int) -> list[Message]:
    messages: list[Message] = []
    seen, room = 0, max(_FIRST_ROOM, n_unread + 1)
    while kind == socket.SOCK_DGRAM or seen < n_unread:
        connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, seen)
        message = _peek(file, connection, room)
        if message is None:
            break
        if message.is_cut:
            room *= 4
            if room > _MAX_ROOM:
                raise file.refuse("a message of more than a gigabyte waits in it")
            continue
        if kind == socket.SOCK_STREAM and message.rights:
            n_before = _bytes_before_rights(connection, seen, len(message.data))
            if n_before:
                messages.append(Message(message.data[:n_before]))
                message.data = message.data[n_before:]
            seen += n_before
        messages.append(message)
        seen += len(message.data)
        # An empty message is marked as seen by the kernel, which passes over it at the same offset next time.
    return messages


def _bytes_before_rights(connection: Socket, at: int, length: int) -> int:
    """How many bytes of a stretch of a stream were sent before the descriptors that came with it.

    The kernel ends a stretch behind the message with descriptors, but lets plain messages run into it; whoever reads as
    far as that message's first byte gets them.  It copies message by message: where the memory ends one byte early,
    the last message fails as a whole, and the length of those before is told.
    """
    connection.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, at)
    room = (length + PAGE_SIZE - 1) & -PAGE_SIZE
    memory = syscall("mmap", nr.mmap, 0, room + PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, _ANONYMOUS, _NO_FD, 0)
    try:
        syscall("mprotect", nr.mprotect, memory + room, PAGE_SIZE, 0)
        start = memory + room - (length - 1)
        return syscall("recvfrom", nr.recvfrom, connection.fileno(), start, length, _PEEK)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return 0
    finally:
        syscall("munmap", nr.munmap, memory, room + PAGE_SIZE)


def _peek(file: OpenFile, connection: Socket, room: int) -> Message | None:
    try:
        data, control, flags, sender = connection.recvmsg(room, _CONTROL_ROOM, _PEEK)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOTCONN, errno.EINVAL, errno.ECONNRESET):
            return None
        raise
    message = Message(data, sender=os.fsencode(sender or b""), is_cut=bool(flags & socket.MSG_TRUNC))
    for level, kind, content in control:
        if level != socket.SOL_SOCKET:
            continue
        if kind == SCM_RIGHTS:
            message.rights = [OwnedFd(fd) for (fd,) in struct.iter_unpack("i", content[: len(content) & ~3])]
        elif kind == SCM_CREDENTIALS:
            message.credentials = struct.unpack("iII", content)
        elif kind == _SCM_PIDFD:
            os.close(struct.unpack("i", content[:4])[0])
    if flags & socket.MSG_CTRUNC:
        raise file.refuse("a message with too many descriptors or other ancillary data waits in it")
    return message


class Queues:
    """The messages in the image, by the file that they wait in."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._by_file: dict[int, list[Entry[m.sk_packet_entry]]] = {}
        if not context.store.exists("sk-queues.img"):
            return
        for item in iter_entries(context.store, "SK_QUEUES"):
            assert isinstance(item.message, m.sk_packet_entry)
            packet = Entry(item.message, item.payload)
            self._by_file.setdefault(item.message.id_for, []).append(packet)

    def has(self, file_id: int) -> bool:
        """Whether anything waits in that file."""
        return file_id in self._by_file

    def of(self, file_id: int) -> list[Entry[m.sk_packet_entry]]:
        """What waits in that file."""
        return self._by_file.get(file_id, [])

    def fill(self, file_id: int, sender_of: Callable[[bytes], tuple[Socket, bytes | None]]) -> None:
        """Send what waits in *file_id*: *sender_of* gives for the address of who sent it whom to send it by.

        That one is connected to the receiver, or the receiver's address comes with it.
        """
        widened: set[int] = set()
        for packet in self._by_file.get(file_id, ()):
            sender, address = sender_of(packet.message.torpor_from)
            if sender.fileno() not in widened:
                widened.add(sender.fileno())
                widen(sender)
            try:
                self._send(packet, sender, address)
            except OSError as error:
                raise RestoreError(
                    f"socket {file_id}: a message of {len(packet.payload)} bytes cannot be put into its queue: "
                    f"{error.strerror}",
                    hint="net.unix.max_dgram_qlen may be smaller here" if error.errno == errno.EAGAIN else None,
                ) from error

    def _send(self, packet: Entry[m.sk_packet_entry], sender: Socket, address: bytes | None) -> None:
        control: list[tuple[int, int, bytes]] = []
        message = packet.message
        for scm in message.scm:
            if scm.type != SCM_RIGHTS or len(scm.rights) > 253:
                raise ImageError(f"sk-queues.img: {len(scm.rights)} of ancillary data of type {scm.type}")
            fds = [self._context.files.open(file_id) for file_id in scm.rights]
            control.append((socket.SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds)))
        if message.HasField("torpor_uid"):
            pid = self._context.part(Actors).pid_of(peer_cred.sender(message).pid)
            owner = self._context.idmaps.outside(message.torpor_uid, message.torpor_gid)
            if -1 not in owner:
                control.append((socket.SOL_SOCKET, SCM_CREDENTIALS, struct.pack("iii", pid, *owner)))
        args = () if address is None else (address,)
        sent = sender.sendmsg([packet.payload], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, *args)
        if sent != len(packet.payload):
            raise RestoreError(
                f"socket {message.id_for}: only {sent} of {len(packet.payload)} bytes fit into its queue"
            )
