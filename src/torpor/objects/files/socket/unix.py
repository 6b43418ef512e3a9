"""unix(7) sockets.

Kernel view
    The table of sock_diag(7): state, name, peer, connections that wait to be accepted, directions shut down, bytes
    unread.  Names: ``unix_name``.  Peers: ``unix_peers``.  What waits in them: ``queues``.
Image
    ``unix_sk_entry``.  ``peer`` of a connection that was not accepted yet is the listener.
Restore
    ``unix_graph``, all of them together.
Limits
    Data sent into a connection that is not accepted yet cannot be seen by anyone: refused.
"""

from __future__ import annotations

import _socket as socket

from torpor.base.errors import KernelError
from torpor.images import messages as m
from torpor.kernel import sock_diag
from torpor.kernel.sockets import asked
from torpor.objects.files import fown
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.networks import Networks
from torpor.objects.files.socket import filters, options, peer_cred, queues, unix_name
from torpor.objects.files.socket.make import family_of
from torpor.objects.files.socket.option_tables import Shape
from torpor.objects.files.socket.unix_graph import Graph, given_name
from torpor.objects.files.socket.unix_peers import Peers
from torpor.objects.files.socket.unix_state import ESTABLISHED, LISTEN
from torpor.objects.session import DumpContext, RestoreContext


class Table:
    """The unix sockets of the tree's network namespaces, read once."""

    def __init__(self, context: DumpContext) -> None:
        self._networks = context.part(Networks)
        self._read()

    def _read(self) -> None:
        try:
            tables = list(self._networks.each(sock_diag.read_unix))
        except KernelError as error:
            error.add_note("unix sockets need CONFIG_UNIX_DIAG")
            raise
        self.sockets = {ino: row for _, table in tables for ino, row in table.items()}
        #: The number in the images of the network namespace that a socket is in.
        self.ns_of = {ino: ns_id for ns_id, table in tables for ino in table}
        self.listener_of = {
            ino: (listener, place)
            for listener in self.sockets.values()
            for place, ino in enumerate(listener.pending, 1)
            if ino
        }

    def row_of(self, file: OpenFile) -> sock_diag.UnixSocket:
        """What it says of a socket; RefusedError for one that it has not, or whose namespace is not the tree's."""
        row = self.sockets.get(file.stat.st_ino)
        if row is None:
            self._networks.id_of(file)  # one that nothing but the socket keeps is met by this
            self._read()
            row = self.sockets.get(file.stat.st_ino)
        if row is None:
            raise file.refuse("a unix socket that the kernel's table does not have")
        return row


def matches(file: OpenFile) -> bool:
    """Whether it is a socket of AF_UNIX."""
    return family_of(file) == socket.AF_UNIX


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Fill in ``entry.usk``, and the queue's image."""
    ino = file.stat.st_ino
    table = context.part(Table)
    row = table.row_of(file)
    sk = entry.usk
    sk.id, sk.ino, sk.type, sk.state, sk.flags = entry.id, ino, row.type, row.state, file.flags
    sk.uflags, sk.backlog, sk.peer, sk.ns_id = 0, row.backlog, row.peer, table.ns_of[ino]
    fown.fill(sk.fown, file)
    unix_name.dump(file, sk, row.name, context)
    peer_cred.dump(file, sk, context)
    if row.shutdown:
        sk.shutdown = row.shutdown & 3
    options.dump(file, Shape(socket.AF_UNIX, row.type, 0), sk.opts, context)
    peers = context.part(Peers)
    if row.state == LISTEN:
        _check_listener(file, row)
    else:
        if row.state == ESTABLISHED and row.type != socket.SOCK_DGRAM and not row.peer:
            _dump_unaccepted(file, sk, row, table)
        queues.dump(file, entry.id, row.type, row.n_unread, context)
    peers.add(file, sk, table.sockets)


def check(file: OpenFile, context: DumpContext) -> None:
    """Refuse, when all are known, connections to sockets outside of the tree."""
    filters.count(file, asked(file.fd))
    table = context.part(Table)
    row = table.sockets.get(file.stat.st_ino)
    if row is None:
        context.part(Networks).check(file)
        return  # younger than the table
    unix_name.check(file, row.name, context)
    peers = context.part(Peers)
    # Ends of connections may lie in a queue, or wait to be accepted: then it cannot be told who is outside.
    if row.n_unread or row.pending:
        peers.cannot_tell()
    sk = m.unix_sk_entry(id=0, ino=row.ino, type=row.type, state=row.state, peer=row.peer)
    peers.add(file, sk, table.sockets)


def _check_listener(file: OpenFile, row: sock_diag.UnixSocket) -> None:
    if 0 in row.pending:
        raise file.refuse(
            "a connection waits to be accepted whose other end is closed",
            hint="what it sent cannot be seen; try again when it is accepted",
        )


def _dump_unaccepted(file: OpenFile, sk: m.unix_sk_entry, row: sock_diag.UnixSocket, table: Table) -> None:
    """A socket that is connected to none: its connection waits to be accepted, or the other end is closed."""
    found = table.listener_of.get(row.ino)
    if found is None:
        return
    listener, place = found
    # Of a connected socket this counts what the other side has not read.
    if row.backlog:
        raise file.refuse(
            "it has sent data into a connection that is not accepted yet",
            hint="they cannot be seen; try again when it is accepted",
        )
    sk.peer = listener.ino
    sk.torpor_pending = place
    peer_cred.dump_connector(file, sk)


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """Make all unix sockets of the image when the first is asked for."""
    return context.part(Graph).make(entry.id)


KIND = FileKind(
    "unix socket",
    m.fd_types.UNIXSK,
    matches,
    dump,
    restore,
    check=check,
    inherit_name=lambda entry, session: given_name(entry),
)
