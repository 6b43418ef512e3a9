"""Credentials of the other end of a unix socket: SO_PEERCRED, SO_PEERGROUPS.

Kernel view
    The kernel notes process, effective user and group, and supplementary groups of whoever calls socketpair(2) (in
    both ends), connect(2) (in the end that accept(2) gives), listen(2) (in the listener; connect(2) copies it).
    A dead process keeps its pid there; as the pid namespace of the asking has it, so that the target itself is asked.
Image
    ``torpor_peer_pid`` (0 for a process outside of the tree), ``torpor_peer_uid``, ``torpor_peer_gid``,
    ``torpor_peer_group``.  Of a connection that is not accepted yet nobody can ask who made it: ``torpor_connector``
    is the process that has its socket, with the less privileged of its user and the socket's owner.
Restore
    The same calls again, by ``peer_actors``.
Limits
    SO_PEERSEC is that of whoever makes the call then.  SO_PEERPIDFD shows what SO_PEERCRED does.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
from collections.abc import Iterable

from torpor.base.ids import Pid, TreePid
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.idmap import NO_ID
from torpor.kernel.procfs.status import read_status
from torpor.kernel.sockets import Socket, asked
from torpor.kernel.uapi.socket import SO_PEERCRED, SO_PEERGROUPS
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext
from torpor.tracee.batch import Batch

_FEW_GROUPS, _ALL_GROUPS = 1024, 4 * 65536
_CREDENTIALS = "iII"
_MAX_PID, _MAX_GROUPS = 1 << 22, 65536


@dataclass(frozen=True, slots=True)
class Who:
    """Whom the kernel has noted, with ids as they are inside of the tree's namespaces."""

    pid: TreePid
    uid: int
    gid: int
    groups: tuple[int, ...]

    def __str__(self) -> str:
        return f"pid {self.pid or 'outside'}, user {_shown(self.uid)}, group {_shown(self.gid)}"


def _shown(ident: int) -> str:
    return "outside" if ident == NO_ID else str(ident)


# -- dump -----------------------------------------------------------------------------------------------------


class _Tree:
    """The tree's processes: the target's numbers by ours."""

    def __init__(self, context: DumpContext) -> None:
        self.numbers = {process.pid: process.ns_pid for process in context.processes}


class _Known:
    """What came of whom the kernel has noted: of a thousand sockets mostly the same."""

    def __init__(self, _context: DumpContext) -> None:
        #: By the process that has a socket, and what the kernel says: the fields; whether the pid has to be asked for.
        self.found: dict[tuple[Pid, bytes, tuple[int, ...]], tuple[m.unix_sk_entry, bool]] = {}


def dump(file: OpenFile, sk: m.unix_sk_entry, context: DumpContext) -> None:
    """Fill in whom the kernel has noted, if anybody."""
    connection = asked(file.fd)
    credentials = connection.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack(_CREDENTIALS, credentials)
    if uid == NO_ID:
        return
    groups = _groups_of(connection)
    known = context.part(_Known).found
    key = file.process.pid, credentials, groups
    if key not in known:
        known[key] = _find(file, Pid(pid), uid, gid, groups, context)
    found, is_unknown = known[key]
    sk.MergeFrom(found)
    if is_unknown and not file.in_flight:
        # Only a task of its pid namespace can be told which number it had there.
        file.process.questions.append(lambda batch: _ask(file.number, sk, batch))


def _find(
    file: OpenFile, pid: Pid, uid: int, gid: int, groups: tuple[int, ...], context: DumpContext
) -> tuple[m.unix_sk_entry, bool]:
    found, idmaps = m.unix_sk_entry(), file.process.idmaps
    found.torpor_peer_uid, found.torpor_peer_gid = idmaps.inside(uid, gid)
    inside = map(idmaps.groups.inside, groups)
    found.torpor_peer_group.extend(group for group in inside if group != NO_ID)
    found.torpor_peer_pid = pid_inside(file, pid, context)
    is_dead = pid > 0 and not os.path.exists(f"/proc/{pid}")
    return found, is_dead and not found.torpor_peer_pid


def pid_inside(file: OpenFile, pid: Pid, context: DumpContext) -> TreePid:
    """The target's number for a process of the tree, or one that is dead, with *pid*; 0 for what it does not know."""
    known = context.part(_Tree).numbers.get(pid, TreePid(0))
    if known or pid <= 0 or int(file.process.pid) != file.process.ns_pid:
        return known
    return TreePid(0 if os.path.exists(f"/proc/{pid}") else pid)


def _ask(number: int, sk: m.unix_sk_entry, batch: Batch) -> None:
    room, length = batch.out(12), batch.data(struct.pack("I", 12))
    batch.call(nr.getsockopt, number, socket.SOL_SOCKET, SO_PEERCRED, room, length)

    def collect() -> None:
        sk.torpor_peer_pid = max(struct.unpack(_CREDENTIALS, room.bytes())[0], 0)

    batch.then(collect)


def _groups_of(connection: Socket) -> tuple[int, ...]:
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _FEW_GROUPS)
    except OSError as error:
        if error.errno != errno.ERANGE:
            return ()  # not before 4.13
        found = connection.getsockopt_in(socket.SOL_SOCKET, SO_PEERGROUPS, bytearray(_ALL_GROUPS))
    return struct.unpack(f"{len(found) // 4}I", found)


def dump_connector(file: OpenFile, sk: m.unix_sk_entry) -> None:
    """Fill in who is most likely to have made a connection that is not accepted yet."""
    process = file.process
    status = read_status(process.pid)
    idmaps = process.idmaps
    owner = idmaps.inside(file.stat.st_uid, file.stat.st_gid)
    now = idmaps.inside(status.uids[1], status.gids[1])
    made = sk.torpor_connector
    # Whoever has given up or taken on privileges since is not to be taken for more than it was.
    made.pid, (made.uid, made.gid) = process.ns_pid, owner if owner[0] else now
    inside = map(idmaps.groups.inside, status.groups)
    made.group.extend(group for group in inside if group != NO_ID)


# -- restore --------------------------------------------------------------------------------------------------


def noted(sk: m.unix_sk_entry) -> Who | None:
    """Whom the socket shows; None where the image does not say, or there is nobody."""
    if not sk.HasField("torpor_peer_uid"):
        return None
    return _who(sk.torpor_peer_pid, sk.torpor_peer_uid, sk.torpor_peer_gid, sk.torpor_peer_group)


def connector(sk: m.unix_sk_entry) -> Who | None:
    """Who has made the connection of *sk* that is not accepted yet; None where the image does not say."""
    if not sk.HasField("torpor_connector"):
        return None
    made = sk.torpor_connector
    return _who(made.pid, made.uid, made.gid, made.group)


def sender(message: m.sk_packet_entry) -> Who:
    """Who has sent a message that waits."""
    return _who(message.torpor_pid, message.torpor_uid, message.torpor_gid, ())


def _who(pid: int, uid: int, gid: int, groups: Iterable[int]) -> Who:
    who = Who(TreePid(pid), uid, gid, tuple(groups))
    if pid > _MAX_PID or len(who.groups) > _MAX_GROUPS:
        raise ImageError(f"files.img: {who} with {len(who.groups)} groups made no unix socket")
    return who
