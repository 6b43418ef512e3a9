"""Who a client of ``criu service`` is, and a worker that has that client's rights and no others.

A service that root runs can do everything; its clients cannot.  What somebody else's request asks for is therefore done
by a worker that has become this somebody for good before it reads the first request: user, groups, limits, control
groups, session keyring, and no capability but CAP_CHECKPOINT_RESTORE (and those that the client has itself, where it is
of our own user).  Which processes may be traced, which files opened, which ids, capabilities, limits and priorities
given, the kernel decides then as it does for the client: there is no list of our own that could lack an option.

Kernel view
    SO_PEERCRED and SO_PEERGROUPS hold what the client was when it connected; SO_PEERPIDFD (6.5) refers to that very
    process, which a pid does not once it has ended.
Limits
    A client in another mount, user or pid namespace, or with another root directory, is refused unless it has all that
    we have: its paths and pids are not ours.  Capabilities of a client of another user are left out, since those of its
    present program need not be those of the one that connected.
"""

from __future__ import annotations

import _socket as socket
import os
import resource
import select
import struct
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import NotPermittedError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.kernel import rlimits
from torpor.kernel.arch import nr
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import Status, read_status
from torpor.kernel.sockets import Borrowed
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.prctl import PR_CAP_AMBIENT, PR_CAPBSET_DROP, PR_SET_DUMPABLE, PR_SET_KEEPCAPS
from torpor.kernel.uapi.socket import SO_PEERCRED, SO_PEERGROUPS

_SO_PEERPIDFD = 77
_MAX_GROUPS = 65536
_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_N_CAPS = 64
_CHECKPOINT_RESTORE = 1 << 40
_JOIN_SESSION_KEYRING = 1
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("mnt", "pid", "user")
#: Not of the way of a dump or restore; and what is on it, here or there, of Python and of others.
_UNUSED = ("torpor.cli.commands", "torpor.cli.torpor", "torpor.containers", "torpor.demo", "torpor.__main__")
_OF_OTHERS = ("tarfile", "gzip", "zlib", "traceback", "linecache", "encodings.idna", "xxhash")


@dataclass(frozen=True, slots=True)
class Peer:
    """A client.  ``is_ours``: it can do by itself whatever we can.  ``capabilities``: those it may pass on."""

    pid: Pid
    uid: int
    gid: int
    groups: tuple[int, ...]
    is_ours: bool
    capabilities: int
    pidfd: OwnedFd

    def lives(self) -> bool:
        """Whether the process that connected is still there; its pid means another one otherwise."""
        poll = select.poll()
        poll.register(self.pidfd.fileno(), select.POLLIN)
        return not poll.poll(0)

    def open_directory(self, number: int) -> OwnedFd:
        """The directory that is descriptor *number* of the client's, and not of whoever has its pid by now.

        NotPermittedError where there is none.
        """
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            found = OwnedFd(os.open(f"/proc/{self.pid}/fd/{number}", flags))
        except OSError as error:
            raise NotPermittedError(f"the client's descriptor {number} is no directory: {error.strerror}") from None
        if not self.lives():
            raise NotPermittedError("the client has ended")
        return found


def identify(fd: int) -> Peer:
    """The client at the other end of *fd*.  NotPermittedError for one that cannot be served."""
    with Borrowed(fd) as connection:
        pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12))
        packed = connection.getsockopt_in(socket.SOL_SOCKET, SO_PEERGROUPS, bytearray(4 * _MAX_GROUPS))
        try:
            pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError:
            pidfd = -1
    if pid <= 0:
        raise NotPermittedError("a client of another pid namespace cannot be served")
    try:
        reference = OwnedFd(pidfd if pidfd >= 0 else os.pidfd_open(pid))
    except OSError:
        raise NotPermittedError("the client has ended") from None
    groups = struct.unpack(f"{len(packed) // 4}I", packed)
    try:
        found = _describe(Peer(Pid(pid), uid, gid, groups, False, 0, reference))
    except OSError as error:
        raise NotPermittedError(f"client {pid} of user {uid} cannot be looked at: {error.strerror}") from None
    if not found.lives():
        raise NotPermittedError("the client has ended")
    return found


def _describe(peer: Peer) -> Peer:
    """Fill in what the client may."""
    status, ours = read_status(peer.pid), read_status(Pid(os.getpid()))
    same_user = peer.uid == os.geteuid() == status.uids[1]
    strange = [
        link for link in _NAMESPACES if _identity(peer.pid, f"ns/{link}") != _identity(os.getpid(), f"ns/{link}")
    ]
    capabilities = 0
    if same_user and "user" not in strange:
        capabilities = status.cap_permitted & ours.cap_permitted
        if capabilities == ours.cap_permitted:
            return Peer(peer.pid, peer.uid, peer.gid, peer.groups, True, capabilities, peer.pidfd)
    if _identity(peer.pid, "root") != _identity(os.getpid(), "root"):
        strange.append("root directory")
    if strange:
        raise NotPermittedError(
            f"client {peer.pid} of user {peer.uid} is in another place ({', '.join(strange)}) than this service"
        )
    return Peer(peer.pid, peer.uid, peer.gid, peer.groups, False, capabilities, peer.pidfd)


def _identity(pid: int, link: str) -> tuple[int, int]:
    info = os.stat(f"/proc/{pid}/{link}")
    return info.st_dev, info.st_ino


def become(peer: Peer) -> None:
    """Have this process, which has one thread, the rights of *peer* from now on.  NotPermittedError."""
    status = read_status(peer.pid)
    try:
        load_everything()
        _take_surroundings(peer)
        if not peer.lives():
            raise NotPermittedError("the client has ended")
        _take_rights(peer, status)
    except OSError as error:
        raise NotPermittedError(
            f"client {peer.pid} of user {peer.uid} cannot be served in its own name: {error.strerror}",
            hint="a service for other users must be run by root",
        ) from None


def load_everything() -> None:
    """Import what is imported late, for it may lie where the client must not read."""
    import importlib
    import pkgutil

    import torpor

    found = pkgutil.walk_packages(torpor.__path__, "torpor.", onerror=lambda name: None)
    names = [module.name for module in found if not module.name.startswith(_UNUSED)]
    for name in (*names, *_OF_OTHERS):
        importlib.import_module(name)


def _take_surroundings(peer: Peer) -> None:
    """What is not a right by itself but belongs to the client: limits, groups of control, priority, keys, environment.

    None of them may be better than the client's own.
    """
    for limit, hard in enumerate(_read_hard_limits(peer.pid)):
        soft, own = resource.getrlimit(limit)
        if hard is not None and (own == resource.RLIM_INFINITY or hard < own):
            resource.setrlimit(limit, (hard if soft == resource.RLIM_INFINITY else min(soft, hard), hard))
    with suppress(PermissionError):  # it may have more than we can give
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, peer.pid))
    with suppress(PermissionError):
        _write("/proc/self/oom_score_adj", read_small(f"/proc/{peer.pid}/oom_score_adj"))
    _join_groups(peer.pid)
    with suppress(OSError):  # a kernel without keys
        syscall("keyctl", nr.keyctl, _JOIN_SESSION_KEYRING)
    os.environ.clear()
    os.environ["PATH"] = _PATH
    os.umask(0o077)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in {0, 1, 2, log.descriptor()}:
        os.dup2(null, number, inheritable=number <= 2)
    os.close(null)
    log.configure(fd=2, level=log.level())


def _read_hard_limits(pid: int) -> list[int | None]:
    """In the order of their numbers; None: unlimited.  prlimit(2) would need CAP_SYS_RESOURCE."""
    return [None if hard == rlimits.INFINITY else hard for _, hard in rlimits.read_limits(pid)]


def _join_groups(pid: int) -> None:
    """The control groups of *pid*: what it starts by us counts for it as what it starts itself."""
    from torpor.objects.cgroup import membership
    from torpor.objects.cgroup.yard import Yard

    theirs = membership.read(f"/proc/{pid}/cgroup")
    ours = {member.hierarchy: member.path for member in membership.read("/proc/self/cgroup")}
    yard = Yard()
    try:
        for member in theirs:
            if ours.get(member.hierarchy) != member.path:
                yard.write(member.hierarchy, member.path, "cgroup.procs", str(os.getpid()))
    finally:
        yard.close()


def _take_rights(peer: Peer, status: Status) -> None:
    """User, groups, capabilities; what is given up does not come back."""
    kept = peer.capabilities | _CHECKPOINT_RESTORE & read_status(Pid(os.getpid())).cap_permitted
    for capability in range(_N_CAPS):
        if not (status.cap_bounding | kept) >> capability & 1:
            with suppress(OSError):  # there are fewer than that
                syscall("prctl", nr.prctl, PR_CAPBSET_DROP, capability)
    syscall("prctl", nr.prctl, PR_SET_KEEPCAPS, 1)
    os.setgroups(peer.groups)
    os.setresgid(peer.gid, peer.gid, peer.gid)
    os.setresuid(peer.uid, peer.uid, peer.uid)
    set_capabilities(kept)
    # Programs that we execute keep it only so: the stub, which is to choose pids.
    for capability in range(_N_CAPS):
        if kept >> capability & 1:
            syscall("prctl", nr.prctl, PR_CAP_AMBIENT, _AMBIENT_RAISE, capability)
    # Our own files of /proc are root's otherwise.  The client may not trace us, who have a capability more.
    syscall("prctl", nr.prctl, PR_SET_DUMPABLE, 1)


def set_capabilities(mask: int) -> None:
    """Have just these, inheritable too; the ambient ones of others go by themselves."""
    header = bytearray(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = bytearray(struct.pack("<6I", low, low, low, high, high, high))
    syscall("capset", nr.capset, address_of(header), address_of(data))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
