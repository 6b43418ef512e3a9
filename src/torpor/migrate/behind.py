"""``torpor restore --lazy``: a tree that runs at once, whose memory comes from the images on this machine behind it.

Two processes of ours outlive the restore.  The bringer reads the images, which it opens before anything runs, so that
they may be removed from then on, and ends when all is there or nobody is any more.  The keeper is its parent and has
all userfaultfds as well, of forks too, so that a bringer who is killed leaves nobody with zeroes in place of what was
missing: whoever touches such a page waits, and the keeper ends the tree, and says so where the root has its standard
error and in the system's log.  A process that has left the tree by then dies of the next page that it lacks (SIGBUS).
"""

from __future__ import annotations

import _socket as socket
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import TorporError, UsageError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images.store import identity_of
from torpor.images.stores.opening import is_stream
from torpor.kernel import signal
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.sockets import Socket, pair
from torpor.migrate import lost
from torpor.migrate.announcing import Announcing

if TYPE_CHECKING:
    import socket as whole

    from torpor.engine.options import Notify
    from torpor.images.store import ImageStore
    from torpor.images.stores.opening import Location

#: What the bringer does: the link of the restore, and who holds what it holds.
Bring = Callable[[Socket, "Keeper"], None]
_PATIENCE_S = 60.0
_CMSG_ROOM = 64
_NUMBER = struct.Struct("=i")


class Bringing(Announcing):
    """``Later`` of a restore, with both processes behind it; ``close`` says that it is over.

    *bring* is what one of them does, with the link of the restore, and its witness; the descriptors *keep* are there.
    *whence*: where the memory comes from, for who is told that it does not.
    """

    def __init__(self, bring: Bring, whence: str, hint: str, keep: tuple[int, ...] = ()) -> None:
        near, far = pair(socket.SOCK_STREAM)
        self._told, told = pair(socket.SOCK_SEQPACKET)
        from torpor.tracee.detached import spawn

        with far, told:
            spawn(lambda: _keep(far, told, bring, whence), (far.fileno(), told.fileno(), *keep))
        super().__init__(near, "whoever was to bring the memory", hint)

    def noting(self, notify: Notify) -> Notify:
        """*notify*, and the keeper learns which process the root is before it runs."""

        def told(action: str, pid: int) -> None:
            notify(action, pid)
            if action == "pre-resume":
                with OwnedFd(open_pidfd(Pid(pid))) as pidfd:
                    _say(self._told, 0, pidfd.fileno())

        return told

    def restored(self) -> None:
        """The images may be removed when this returns."""
        try:
            super().restored()
            self._link.settimeout(_PATIENCE_S)
            is_there = self._link.recv(1) == b"."
        except (OSError, TorporError):
            is_there = False
        if not is_there:
            log.warn("whoever was to bring the memory has gone: the processes are ended")

    def wait(self) -> None:
        """Until all is there, or will never be."""
        with suppress(OSError):
            self._link.settimeout(None)
            while self._link.recv(1):
                pass

    def close(self) -> None:
        super().close()
        self._told.close()


class Behind(Bringing):
    """From a directory.  UsageError where the images cannot be left to somebody else."""

    def __init__(self, place: Location, *, verify: bool = True) -> None:
        path = _check(place)
        with _open(path, verify) as store:
            ident = identity_of(store)

        def bring(link: Socket, keeper: Keeper) -> None:
            _bring(link, keeper, path, ident, verify)

        super().__init__(bring, path, "try it without --lazy, which says more")


def _check(place: Location) -> str:
    if not isinstance(place, str | os.PathLike) or is_stream(place) or os.path.isfile(place):
        raise UsageError(
            "--lazy: an archive is read to its end before anything runs, so nothing would be gained",
            hint="unpack it (tar -xf) and restore its directory, or leave out --lazy",
        )
    return os.path.abspath(place)


def _open(path: str, verify: bool) -> ImageStore:
    from torpor.engine.sets.reading import open_set

    return open_set(path, verify=verify)


def _say(to: Socket, number: int, fd: int | None = None) -> None:
    """One message: a number, and what has it, which is let go without a descriptor."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
    with suppress(OSError):  # whoever has gone needs it no more
        to.sendmsg([_NUMBER.pack(number)], rights, socket.MSG_NOSIGNAL)


def _hear(link: Socket) -> tuple[int, OwnedFd | None] | None:
    """The next message; None at the end."""
    data, control, _, _ = link.recvmsg(_NUMBER.size, _CMSG_ROOM, socket.MSG_CMSG_CLOEXEC)
    if len(data) != _NUMBER.size:
        return None
    fds = [OwnedFd(struct.unpack_from("i", content)[0]) for _, _, content in control]
    return _NUMBER.unpack(data)[0], fds[0] if fds else None


class Keeper:
    """The bringer's witness: the keeper holds what it holds."""

    def __init__(self, link: Socket) -> None:
        self._link = link

    def taken(self, fd: int) -> None:
        _say(self._link, fd, fd)

    def ended(self, fd: int) -> None:
        _say(self._link, fd)


# -- the bringer ------------------------------------------------------------------------------------------------------


def _bring(link: Socket, keeper: Keeper, path: str, ident: bytes, verify: bool) -> None:
    from torpor.images.store import load_all
    from torpor.kernel.rlimits import raise_descriptor_limit
    from torpor.migrate.filling import Filler
    from torpor.migrate.lazy_pages import Daemon
    from torpor.migrate.sources import ImageSource

    raise_descriptor_limit()
    with _open(path, verify) as store:
        if identity_of(store) != ident:
            raise TorporError(f"{path}: there are other images by now")
        source = ImageSource(store)
        known = {entry.pid for entry in load_all(store, kinds.PSTREE)}
        for pid in known:
            if store.exists(kinds.PAGEMAP.file_name(pid)):
                source.prepare(pid)
        filler = Filler(source, keeper)
        daemon = Daemon(whole_of(link), store, filler, known)
        daemon.may_run = True
        daemon.restored = lambda: _say_ready(link, store)
        daemon.run()


def whole_of(link: Socket) -> whole.socket:
    """Another end of *link*, with all that Python's module has."""
    import socket as whole

    return whole.socket(fileno=os.dup(link.fileno()))


def _say_ready(link: Socket, store: ImageStore) -> None:
    """All page maps have been read, and all pages images are open: others may do with the directory what they like."""
    store.close()
    say_ready(link)


def say_ready(link: Socket) -> None:
    """The restore need not be there any more."""
    with suppress(OSError):
        link.send(b".", socket.MSG_NOSIGNAL)


# -- the keeper -------------------------------------------------------------------------------------------------------


def _keep(link: Socket, told: Socket, bring: Bring, whence: str) -> None:
    near, far = pair(socket.SOCK_SEQPACKET)
    if (child := os.fork()) == 0:
        status = 1
        try:
            near.close()
            told.close()
            bring(link, Keeper(far))
            status = 0
        finally:
            os._exit(status)
    link.close()
    far.close()
    root: OwnedFd | None = None
    faults: dict[int, OwnedFd] = {}
    for who, number, fd in _iter_told(near, told):
        if who is told:
            root = fd
        elif fd is not None:
            faults[number] = fd
        else:
            faults.pop(number).close()
    _, status = os.waitpid(child, 0)
    if status:
        _give_up(root, list(faults.values()), whence, os.waitstatus_to_exitcode(status))


def _iter_told(*sources: Socket) -> Iterator[tuple[Socket, int, OwnedFd | None]]:
    """What is said, and by whom, until the bringer has ended, and the restore as well."""
    import select

    poll = select.poll()
    talking = {each.fileno(): each for each in sources}
    for number in talking:
        poll.register(number, select.POLLIN)
    while talking:
        for number, _ in poll.poll():
            if (message := _hear(talking[number])) is not None:
                yield talking[number], *message
            else:
                poll.unregister(number)
                del talking[number]


def _give_up(root: OwnedFd | None, faults: list[OwnedFd], whence: str, code: int) -> None:
    how = f"was killed by signal {-code}" if code < 0 else "has failed"
    if root is not None and (pid := _pid_of(root)) is not None:
        text = f"torpor: pid {pid} is ended, for who brought its memory from {whence} {how} before all of it was there"
        _tell(pid, text)
        _end_tree(pid)
    lost.keep(faults)


def _pid_of(pidfd: OwnedFd) -> Pid | None:
    """Of the process, as long as it is there."""
    with suppress(OSError, ValueError):
        with open(f"/proc/self/fdinfo/{pidfd.fileno()}") as stream:
            pid = next(int(line.split()[1]) for line in stream if line.startswith("Pid:"))
        return Pid(pid) if pid > 0 else None
    return None


def _tell(pid: Pid, text: str) -> None:
    """Where the root has its standard error, if that keeps what is said; and in the system's log."""
    import stat
    import syslog

    with suppress(OSError):
        place = f"/proc/{pid}/fd/2"
        if stat.S_ISREG(os.stat(place).st_mode):
            with OwnedFd(os.open(place, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)) as fd:
                os.write(fd.fileno(), f"{text}\n".encode())
    syslog.openlog("torpor", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, text)


def _end_tree(root: Pid) -> None:
    """Children before their parents would leave orphans to be found: all are stopped first."""
    found: list[Pid] = []
    pending = [root]
    while pending:
        pid = pending.pop()
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
            found.append(pid)
            for tid in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{tid}/children") as stream:
                    pending += [Pid(int(word)) for word in stream.read().split()]
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
