"""Unix sockets that are connected to others outside of the tree.

Kernel view
    sock_diag(7) says the inode of each socket's peer, and the peer's name.
Image
    Such a peer has an entry of its own, with ``uflags`` 1, the state of a listener and its name.
Restore
    A datagram socket connects to the name again; a stream that leads to systemd's journal: ``journal``.
Limits
    But for who never answers (``one_way``), all others without --ext-unix-sk or --external unix[INODE] refused; with
    the first only datagram sockets whose peer has a name.
"""

from __future__ import annotations

import _socket as socket
import os

from torpor.images import messages as m
from torpor.kernel import sock_diag
from torpor.objects.files.model import OpenFile
from torpor.objects.files.socket import journal, one_way
from torpor.objects.files.socket.unix_state import EXTERN, LISTEN
from torpor.objects.session import DumpContext, DumpStage


class Peers:
    """The connections between the sockets of a dump, checked when all are known."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._dumped: set[int] = set()
        self._waiting: list[tuple[OpenFile, m.unix_sk_entry]] = []
        self._rows: dict[int, sock_diag.UnixSocket] = {}
        self._outside: dict[int, sock_diag.UnixSocket] = {}
        self._can_tell = True
        context.at(DumpStage.KNOWN, self._check)
        context.at(DumpStage.WRITTEN, self._add_externs)

    def add(self, file: OpenFile, sk: m.unix_sk_entry, rows: dict[int, sock_diag.UnixSocket]) -> None:
        """Take note of a dumped socket."""
        self._rows = rows
        self._dumped.add(sk.ino)
        if sk.peer:
            self._waiting.append((file, sk))

    def cannot_tell(self) -> None:
        """Some sockets of the tree are not known: nothing is refused."""
        self._can_tell = False

    def _check(self) -> None:
        if not self._can_tell:
            return
        for file, sk in self._waiting:
            if sk.peer in self._dumped:
                continue
            peer = self._rows.get(sk.peer)
            self._allow(file, sk, peer)
            if peer is not None:
                self._outside[peer.ino] = peer

    def _add_externs(self) -> None:
        for peer in self._outside.values():
            self._add_extern(peer)

    def _allow(self, file: OpenFile, sk: m.unix_sk_entry, peer: sock_diag.UnixSocket | None) -> None:
        policies = self._context.policies
        if f"unix[{sk.ino}]" in policies.external:
            return
        if peer is not None and journal.is_journal(peer.name, sk.type):
            journal.dump(file, sk)
            return
        if peer is not None and one_way.leads_to(peer.name, sk.type):
            return
        name = os.fsdecode(peer.name.rstrip(b"\0").replace(b"\0", b"@")) if peer and peer.name else ""
        whom = f"a socket outside of the tree ({name or 'without a name'}, inode {sk.peer})"
        if not policies.network.ext_unix:
            raise file.refuse(
                f"a unix socket (inode {sk.ino}) connected to {whom}",
                hint=f"--ext-unix-sk (torpor: --external-unix) or --external unix[{sk.ino}] lets it reconnect",
            )
        if sk.type != socket.SOCK_DGRAM or not name:
            raise file.refuse(
                f"half of a unix connection to {whom}; only a datagram socket can connect to a name again",
                hint=f"--external unix[{sk.ino}] leaves it to whoever restores to give it a connection",
            )

    def _add_extern(self, peer: sock_diag.UnixSocket) -> None:
        entry = m.file_entry(type=m.fd_types.UNIXSK, id=self._context.files.new_id())
        sk = entry.usk
        sk.id, sk.ino, sk.type, sk.state = entry.id, peer.ino, peer.type, LISTEN
        sk.flags, sk.uflags, sk.backlog, sk.peer, sk.name = 0, EXTERN, 0, 0, peer.name
        fown, opts = sk.fown, sk.opts
        fown.uid = fown.euid = fown.signum = fown.pid_type = fown.pid = 0
        opts.so_sndbuf = opts.so_rcvbuf = 0
        opts.so_snd_tmo_sec = opts.so_snd_tmo_usec = opts.so_rcv_tmo_sec = opts.so_rcv_tmo_usec = 0
        self._context.files.entries.append(entry)
