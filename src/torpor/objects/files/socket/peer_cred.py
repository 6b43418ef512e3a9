"""Credentials of the other end of a unix socket (SO_PEERCRED).

Kernel view
    The kernel notes process, user and group of whoever calls listen(2), connect(2) or socketpair(2).
Image
    ``torpor_peer_pid`` (0 for a process outside of the tree), ``torpor_peer_uid``, ``torpor_peer_gid``.
Restore
    listen(2) again, and socketpair(2), by the puppet of that process, with that user and group for the moment.
Limits
    A connection made by connect(2) shows our own process, as does everything of a process that is gone.
"""

from __future__ import annotations

import _socket as socket
import os
import struct

from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd
from torpor.kernel.sockets import Borrowed, Socket
from torpor.objects.files.model import FileDump, FileRestore, OpenFile
from torpor.objects.model import RestoreProcess
from torpor.tracee.batch import Batch

_SO_PEERCRED = 17
_NOBODY = 0xFFFFFFFF


def dump(file: OpenFile, sk: m.unix_sk_entry, session: FileDump) -> None:
    """Fill in whom the kernel has noted, if anybody."""
    with Borrowed(file.fd) as connection:
        pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, 12))
    if uid == _NOBODY:
        return
    inside = next((process.ns_pid for process in session.processes if process.pid == pid), 0)
    sk.torpor_peer_pid = inside
    sk.torpor_peer_uid, sk.torpor_peer_gid = file.process.idmaps.inside(uid, gid)


def make_pair(first: m.unix_sk_entry, second: m.unix_sk_entry, session: FileRestore) -> tuple[Socket, Socket] | None:
    """A pair made by the process that made it; None where none of the tree did, or not both ends."""
    same = ("torpor_peer_pid", "torpor_peer_uid", "torpor_peer_gid")
    if any(getattr(first, name) != getattr(second, name) for name in same):
        return None
    process = _process_of(first, session)
    if process is None:
        return None
    batch = Batch()
    numbers = batch.out(8)
    _enter(batch, first)
    batch.call(nr.socketpair, socket.AF_UNIX, first.type | socket.SOCK_CLOEXEC, 0, numbers)
    _leave(batch)
    process.runner.run(batch)
    theirs = struct.unpack("ii", numbers.bytes())
    pidfd = os.pidfd_open(process.pid)
    try:
        ends = [Socket(socket.AF_UNIX, first.type, 0, fileno=getfd(pidfd, number)) for number in theirs]
    finally:
        os.close(pidfd)
    batch = Batch()
    for number in theirs:
        batch.call(nr.close, number)
    process.runner.run(batch)
    return ends[0], ends[1]


def listen_again(sk: m.unix_sk_entry, session: FileRestore) -> None:
    """Let the process that listened listen, once it has the descriptor."""
    wanted = _process_of(sk, session)
    holders = session.holders(sk.id)
    mine = [(process, number) for process, number in holders if process is wanted] or holders
    if not mine or not sk.HasField("torpor_peer_uid"):
        return
    process, number = mine[0]
    batch = Batch()
    _enter(batch, sk)
    batch.call(nr.listen, number, sk.backlog)
    _leave(batch)
    process.runner.run(batch)


def _process_of(sk: m.unix_sk_entry, session: FileRestore) -> RestoreProcess | None:
    if not sk.torpor_peer_pid:
        return None
    alive = (process for process in session.processes if not process.is_zombie and process.is_born)
    return next((process for process in alive if process.ns_pid == sk.torpor_peer_pid), None)


def _enter(batch: Batch, sk: m.unix_sk_entry) -> None:
    """Take on the user and group, the saved ones stay root's.  They may not be known here (user namespaces)."""
    keep = _NOBODY
    batch.call(nr.setresgid, keep, sk.torpor_peer_gid, keep, may_fail=True)
    batch.call(nr.setresuid, keep, sk.torpor_peer_uid, keep, may_fail=True)


def _leave(batch: Batch) -> None:
    keep = _NOBODY
    batch.call(nr.setresuid, keep, 0, keep, may_fail=True)
    batch.call(nr.setresgid, keep, 0, keep, may_fail=True)
