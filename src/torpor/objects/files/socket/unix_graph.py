"""Restoring unix sockets: all of an image together, since each may need others.

make        every socket, pairs at once; names are bound, listeners listen
accept      connections that were accepted under a listener's name get it by being accepted again
wait        connections that were not accepted yet, in their order
(later, when all files can be opened)
fill        what waits in each, sent from its other end
connect     datagram sockets whose peer is not connected to them, since only the peer may send to them afterwards
finish      options, flags, directions
"""

from __future__ import annotations

import _socket as socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import address_of, syscall
from torpor.objects.files.socket import journal, one_way, options, peer_cred
from torpor.objects.files.socket.finish import finish
from torpor.objects.files.socket.make import make_socket
from torpor.objects.files.socket.peer_actors import Actors
from torpor.objects.files.socket.peer_cred import Who
from torpor.objects.files.socket.queues import Queues
from torpor.objects.files.socket.unix_bind import Namer
from torpor.objects.files.socket.unix_name import Name, name_of
from torpor.objects.files.socket.unix_senders import Receiver, Senders
from torpor.objects.files.socket.unix_state import ESTABLISHED, EXTERN, LISTEN
from torpor.objects.session import RestoreContext, RestoreStage

_STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


@dataclass(slots=True)
class Node:
    """A socket of the image, its peer in the image, and what was made of it.

    ``other`` is the far end, ours alone, of a socket whose peer is closed or that must be sent to.
    """

    sk: m.unix_sk_entry
    name: Name
    peer: Node | None = None
    made: Socket | None = None
    other: Socket | None = None
    #: Whether whoever restores has given us one in its place (``--inherit-fd``).
    is_given: bool = False

    @property
    def id(self) -> int:
        """The id of the file in the images."""
        return self.sk.id

    @property
    def is_stream(self) -> bool:
        """Whether it is connected to one other for good."""
        return self.sk.type in _STREAMS

    @property
    def is_mutual(self) -> bool:
        """Whether the peer is connected back."""
        peer = self.peer
        return peer is not None and peer is not self and peer.peer is self and not (self.is_given or peer.is_given)

    @property
    def is_extern(self) -> bool:
        """Whether it is a socket outside of the tree."""
        return bool(self.sk.uflags & EXTERN)

    @property
    def socket(self) -> Socket:
        """The socket; ImageError where the image's order does not give it one."""
        if self.made is None:
            raise ImageError(f"files.img: unix socket {self.id} depends on itself")
        return self.made

    def __str__(self) -> str:
        return f"unix socket {self.id}" + (f" ({self.name})" if self.name.text else "")


class Graph:
    """All unix sockets of a restore."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self._nodes = {
            entry.id: Node(
                entry.usk,
                name_of(entry.usk, context.idmaps, context.new_labels),
                is_given=given_name(entry) in context.files.inherited,
            )
            for entry in context.files.entries.values()
            if entry.type == m.fd_types.UNIXSK
        }
        #: Those of the tree that nobody has given us.
        self._own = [node for node in self._nodes.values() if not (node.is_extern or node.is_given)]
        self._namer = Namer(context)
        self._actors = context.part(Actors)
        #: By the file id of a listener, the process that clients take it for at the moment (SO_PEERCRED).
        self._shown: dict[int, Who | None] = {}
        #: Listeners that we made in the place of those that are closed by now.
        self._stand_ins: list[Node] = []
        self._link()

    def make(self, file_id: int) -> int:
        """Make all; the descriptor of *file_id*, which the caller owns.  The others are the session's."""
        try:
            self._make_all()
        except OSError as error:
            raise RestoreError(f"unix sockets cannot be made: {error.strerror}") from error
        finally:
            self._actors.close()
            for listener in self._stand_ins:
                listener.socket.close()
            if any(node.made is None for node in self._own):
                self._namer.close()
        self._context.at(RestoreStage.QUEUED, self._complete)
        asked = -1
        for node in self._own:
            fd = node.socket.detach()
            if node.id == file_id:
                asked = fd
            else:
                self._context.files.adopt(node.id, fd)
        if asked < 0:
            raise RestoreError(f"{self._nodes[file_id]} is outside of the tree and cannot be opened")
        return asked

    def _link(self) -> None:
        by_ino: dict[int, Node] = {}
        for node in self._nodes.values():
            if node.sk.ino in by_ino:
                raise ImageError(f"files.img: two unix sockets of inode {node.sk.ino}")
            by_ino[node.sk.ino] = node
        for node in self._own:
            if node.sk.peer:
                node.peer = by_ino.get(node.sk.peer)
                if node.peer is None:
                    raise ImageError(f"files.img: {node} has a peer, inode {node.sk.peer}, that is not there")

    def _place(self, node: Node) -> tuple[int, str, bytes]:
        """The same for the same name."""
        name = node.name
        if not name.is_path:
            return -1, "", name.text
        return self._context.files.place_of(name.mount, name.path)[0], name.path, b""

    # -- make -------------------------------------------------------------------------------------------------

    def _make_all(self) -> None:
        listeners = {self._place(node): node for node in self._own if node.sk.state == LISTEN and node.name.text}
        for node in self._own:
            if not (node.is_mutual or self._is_connected_stream(node)):
                with self._labelling(node):
                    self._make_alone(node)
        self._actors.expect_pairs(self._plain_pairs())
        for node in self._own:
            with self._labelling(node):
                if node.made is None and node.is_mutual:
                    assert node.peer is not None
                    self._make_pair(node, node.peer, listeners)
                elif node.made is None:
                    self._make_orphan(node, listeners)
        unaccepted = [node for node in self._own if self._is_unaccepted(node)]
        for node in sorted(unaccepted, key=lambda node: node.sk.torpor_pending):
            assert node.peer is not None
            # If the backlog was made smaller since, connect(2) would wait for ever.
            node.socket.setblocking(False)
            options.restore_passing(node.peer.socket, node.peer.sk.opts, str(node.peer))
            self._connect_as(peer_cred.connector(node.sk), node, node.peer)
        for node in self._own:
            if node.sk.state == LISTEN:
                self._listen(node, peer_cred.noted(node.sk))

    def _labelling(self, node: Node) -> AbstractContextManager[None]:
        return self._context.files.labelling(node.id)

    def _plain_pairs(self) -> Iterator[tuple[Who | None, int, str]]:
        """Who made each pair that ``_make_pair`` makes by one call, of which type and with what label."""
        for node in self._own:
            peer = node.peer
            if node.is_mutual and peer is not None and node.id < peer.id and not (node.name.text or peer.name.text):
                who = peer_cred.noted(node.sk)
                if who == peer_cred.noted(peer.sk):
                    yield who, node.sk.type, self._context.files.labels.get(node.id, "")

    def _is_connected_stream(self, node: Node) -> bool:
        return node.is_stream and node.sk.state == ESTABLISHED and not self._is_unaccepted(node)

    def _is_unaccepted(self, node: Node) -> bool:
        return node.is_stream and node.peer is not None and node.peer.sk.state == LISTEN and not node.peer.is_extern

    def _make_alone(self, node: Node) -> None:
        sk = node.sk
        if sk.type == socket.SOCK_DGRAM and self._queues.has(node.id) and not node.name.text:
            node.made, node.other = self._pair_with_sender(node)
        else:
            node.made = make_socket(self._context, socket.AF_UNIX, sk.type, 0, sk.ns_id)
        if node.name.text:
            self._namer.bind(node.id, node.made, node.name)
        if sk.state == LISTEN:
            self._listen(node, peer_cred.noted(sk))

    def _listen(self, listener: Node, who: Who | None) -> None:
        """Let the listener show *who* from now on: those who connect are told what it shows then."""
        if listener.id not in self._shown or self._shown[listener.id] != who:
            backlog = listener.sk.backlog if listener.sk.state == LISTEN else 1
            self._actors.listen(who, listener.socket, backlog)
            self._shown[listener.id] = who

    def _connect_as(self, who: Who | None, client: Node, listener: Node) -> None:
        shown = peer_cred.noted(client.sk)
        if shown is not None or listener.id not in self._shown:
            self._listen(listener, shown)
        self._connect_to(who, client.socket, listener)

    def _connect_to(self, who: Who | None, client: Socket, listener: Node) -> None:
        name = listener.name
        with self._namer.file_of(listener.id, name) as file:
            self._actors.connect(who, client, b"" if name.is_path else name.text, file.fileno())

    @property
    def _queues(self) -> Queues:
        return self._context.part(Queues)

    def _pair_with_sender(self, node: Node) -> tuple[Socket, Socket]:
        """A datagram socket that is connected to none, and another that is connected to it and can fill it."""
        receiver, sender = self._actors.pair(peer_cred.noted(node.sk), node.sk.type, node.sk.ns_id)
        # connect(2) to AF_UNSPEC takes away the peer; Python has no address for that.
        disconnect(receiver.fileno())
        # The kernel tells the sender of that by ECONNRESET; reading the error takes it away.
        sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return receiver, sender

    def _make_orphan(self, node: Node, listeners: dict[tuple[int, str, bytes], Node]) -> None:
        """A connected stream whose other end is closed: ours stands in for it until the queue is filled."""
        if node.peer is not None and node.peer.is_extern and node.sk.torpor_journal:
            node.made = make_socket(self._context, socket.AF_UNIX, node.sk.type, 0, node.sk.ns_id)
            journal.connect(node.sk, node.made, str(node))
            return
        if node.peer is not None:
            raise RestoreError(
                f"{node} is connected to a socket outside of the tree ({node.peer.name})",
                hint=f"give the restore a connected socket for it: --inherit-fd fd[N]:socket:[{node.sk.ino}]",
            )
        who = peer_cred.noted(node.sk)
        if (listener := self._listener_for(node, listeners)) is not None:
            node.other = make_socket(self._context, socket.AF_UNIX, node.sk.type, 0, node.sk.ns_id)
            self._connect_to(who, node.other, listener)
            node.made = listener.socket.accept_one()
            return
        node.made, node.other = self._actors.pair(who, node.sk.type, node.sk.ns_id)
        self._bind_connected(node)

    def _make_pair(self, node: Node, peer: Node, listeners: dict[tuple[int, str, bytes], Node]) -> None:
        if node.sk.type != peer.sk.type:
            raise ImageError(f"files.img: {node} and {peer} are of different types")
        for client, server in ((node, peer), (peer, node)):
            if (listener := self._listener_for(server, listeners)) is not None:
                self._accept(client, server, listener)
                return
        ours, theirs = peer_cred.noted(node.sk), peer_cred.noted(peer.sk)
        if ours != theirs and node.is_stream:
            client, server = (node, peer) if peer.name.text else (peer, node)
            self._accept(client, server, self._stand_in(server, listeners))
            return
        if ours is None and not node.is_stream and node.name.text and peer.name.text:
            self._connect_each_other(node, peer)
            return
        node.made, peer.made = self._actors.pair(ours, node.sk.type, node.sk.ns_id)
        self._bind_connected(node)
        self._bind_connected(peer)

    def _connect_each_other(self, node: Node, peer: Node) -> None:
        """Datagram sockets that were connected by their names: of such the kernel has noted nobody."""
        for each in (node, peer):
            with self._labelling(each):
                each.made = make_socket(self._context, socket.AF_UNIX, each.sk.type, 0, each.sk.ns_id)
            self._namer.bind(each.id, each.made, each.name)
        self._namer.connect(node.socket, peer.id, peer.name)
        self._namer.connect(peer.socket, node.id, node.name)

    def _listener_for(self, server: Node, listeners: dict[tuple[int, str, bytes], Node]) -> Node | None:
        """A listener that has the name of *server*, and can give it to connections."""
        found = listeners.get(self._place(server)) if server.name.text and server.is_stream else None
        return found if found is not None and found.made is not None and found.sk.type == server.sk.type else None

    def _stand_in(self, server: Node, listeners: dict[tuple[int, str, bytes], Node]) -> Node:
        """A listener for connections whose own is closed: only so can their ends be told of different others."""
        with self._labelling(server):
            made = make_socket(self._context, socket.AF_UNIX, server.sk.type, 0, server.sk.ns_id)
        listener = Node(server.sk, server.name, made=made)
        self._stand_ins.append(listener)
        if server.name.text:
            self._bind_connected(listener)
            listeners[self._place(server)] = listener
        if not made.getsockname():
            # Without a name nobody can connect: the kernel gives it one.
            bind_anyhow(made.fileno())
            listener.name = Name(made.getsockname(), "/", is_deleted=False, mode=0, uid=0, gid=0)
            log.warn(f"{server} has the name {listener.name} now")
        return listener

    def _accept(self, client: Node, server: Node, listener: Node) -> None:
        """Let *client* connect to *listener*, which gives *server* the listener's name."""
        with self._labelling(client):
            client.made = make_socket(self._context, socket.AF_UNIX, client.sk.type, 0, client.sk.ns_id)
        if client.name.text:
            self._namer.bind(client.id, client.made, client.name)
        # A backlog of 0 lets one connection wait, and nobody else knows the listener yet.
        self._connect_as(peer_cred.noted(server.sk), client, listener)
        server.made = listener.socket.accept_one()

    def _bind_connected(self, node: Node) -> None:
        """The name of a connected socket; taken from a listener that is gone it may come several times."""
        if not node.name.text:
            return
        try:
            self._namer.bind(node.id, node.socket, node.name)
        except RestoreError as error:
            if node.name.is_path or not node.is_stream:
                raise
            log.warn(f"{node} stays without a name: {error}")

    # -- later ------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        nodes = self._own
        try:
            for node in nodes:
                node.made = borrowed(self._context.files.open(node.id), node.sk.type)
            self._fill_all(nodes)
            for node in nodes:
                self._connect(node)
            for node in nodes:
                finish(
                    node.socket,
                    node.sk,
                    str(node),
                    self._context.idmaps,
                    shut=0 if self._is_orphan(node) else node.sk.shutdown,
                )
        finally:
            for node in nodes:
                if node.made is not None:
                    node.made.detach()
            self._namer.close()
            self._actors.close()

    def _is_orphan(self, node: Node) -> bool:
        return node.is_stream and node.sk.state == ESTABLISHED and node.peer is None

    def _fill_all(self, nodes: list[Node]) -> None:
        named = {node.name.text: node for node in nodes if node.sk.type == socket.SOCK_DGRAM and node.name.text}

        def find(text: bytes) -> Socket | None:
            return named[text].socket if text in named else None

        senders = Senders(self._context, self._namer, find)
        try:
            for node in nodes:
                self._fill(node, senders)
        finally:
            senders.close()

    def _fill(self, node: Node, senders: Senders) -> None:
        if self._queues.has(node.id):
            connected = node.other
            if connected is None and node.is_mutual and node.peer is not None:
                connected = node.peer.socket
            if connected is not None and node.is_stream:
                self._queues.fill(node.id, lambda _: (connected, None))
            elif node.sk.type == socket.SOCK_DGRAM and (connected is not None or node.name.text):
                self._queues.fill(node.id, senders.to(Receiver(node.id, node.name, node.sk.ns_id), connected))
                senders.filled()
            else:
                raise ImageError(f"sk-queues.img: messages wait in {node}, where none can")
        if node.other is not None:
            node.other.close()

    def _connect(self, node: Node) -> None:
        peer = node.peer
        if peer is None or node.is_stream or node.is_mutual:
            return
        is_asked_for = self._context.policies.network.ext_unix or one_way.leads_to(peer.name.text, node.sk.type)
        if peer.is_extern and not is_asked_for:
            raise RestoreError(
                f"{node} was connected to {peer.name}, outside of the tree",
                hint="--ext-unix-sk (torpor: --external-unix) lets it connect again",
            )
        if not peer.name.text:
            raise RestoreError(f"{node}: its peer {peer} has no name to connect to")
        try:
            self._namer.connect(node.socket, peer.id, peer.name)
        except OSError as error:
            raise RestoreError(f"{node} cannot connect to {peer.name}: {error.strerror}") from error


def given_name(entry: m.file_entry) -> str:
    """What ``--inherit-fd`` calls a unix socket."""
    return f"socket:[{entry.usk.ino}]"


def borrowed(fd: int, kind: int) -> Socket:
    """A socket object for a descriptor that others own; to be detached."""
    return Socket(socket.AF_UNIX, kind, 0, fileno=fd)


def disconnect(fd: int) -> None:
    """Take away the peer of a datagram socket: connect(2) with AF_UNSPEC.  OSError."""
    address = bytearray(struct.pack("H", socket.AF_UNSPEC))
    syscall("connect", nr.connect, fd, address_of(address), len(address))


def bind_anyhow(fd: int) -> None:
    """bind(2) to a name that the kernel chooses: unix(7), autobind."""
    address = bytearray(struct.pack("H", socket.AF_UNIX))
    syscall("bind", nr.bind, fd, address_of(address), len(address))
