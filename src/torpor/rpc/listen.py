"""The listening socket of ``criu service``: a worker process for each client.

Only its owner may connect, unless told otherwise; who others are, and what they may, is in :mod:`torpor.rpc.peer`.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

from torpor.base import log
from torpor.base.background import say_ready, to_background, write_pid
from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.base.typed import NoReturn
from torpor.kernel import errand, signal
from torpor.rpc.channel import Channel
from torpor.rpc.service import refuse

_BACKLOG = 16
#: So many workers at once; whoever comes then waits to be accepted.  Of these so many for other users than our own
#: altogether, and for each of them: who is refused then is told.
_MOST, _MOST_OF_OTHERS, _MOST_OF_ONE = 64, 48, 16
#: After a connection that could not be accepted for want of memory or descriptors.
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: the *mode* of the socket, and its *group* (-1: ours)."""

    mode: int = 0o600
    group: int = -1


def listen(
    address: str, access: Access, *, daemon: bool, pid_file: str, status_fd: int, serve: Callable[[int], bool]
) -> NoReturn:
    """Bind *address* and *serve* every connection (given by its descriptor) in a process of its own, for ever.

    As a *daemon* we go on in a child, and the caller's process ends once the socket listens.
    """
    server = _bind(address, access)
    if daemon:
        to_background(pid_file)
    elif pid_file:
        write_pid(pid_file, os.getpid())
    say_ready(status_fd)
    _let_kernel_reap()
    log.info(f"The service socket is bound to {address}")
    workers = Workers()
    while True:
        workers.wait(server)
        try:
            client, _ = server.accept()
        except OSError as error:
            log.error(f"a client cannot be accepted: {error.strerror}")
            workers.wait(None, _PAUSE_S)
            continue
        user = _user_of(client)
        if reason := workers.refusal(user):
            _turn_away(client, reason)
        else:
            _employ(client.detach(), user, server, workers, serve)


class Workers:
    """Those that are at work, by the user for whom they are."""

    def __init__(self) -> None:
        #: By the pidfd: the user.
        self._all: dict[int, int] = {}

    def add(self, pid: int, user: int) -> None:
        """One, our child, whom nobody has reaped."""
        try:
            self._all[os.pidfd_open(pid)] = user
        except OSError as error:
            log.warn(f"nobody else is served until worker {pid} has ended: {error.strerror}")
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def forget(self) -> None:
        """In a worker: the others are none of its business."""
        for pidfd in self._all:
            os.close(pidfd)
        self._all.clear()

    def refusal(self, user: int) -> str:
        """Why there is to be no worker for another client of *user*'s; empty: there may be one."""
        if user == os.geteuid():
            return ""
        others = [each for each in self._all.values() if each != os.geteuid()]
        if others.count(user) >= _MOST_OF_ONE:
            return f"user {user} has {_MOST_OF_ONE} connections to the service already"
        if len(others) >= _MOST_OF_OTHERS:
            return f"{_MOST_OF_OTHERS} connections to the service are other users' already"
        return ""

    def wait(self, server: socket.socket | None, timeout_s: float | None = None) -> None:
        """Until somebody connects to *server* and there may be one more; those that end meanwhile are forgotten."""
        while True:
            poll = select.poll()
            if server is not None and len(self._all) < _MOST:
                poll.register(server, select.POLLIN)
            for pidfd in self._all:
                poll.register(pidfd, select.POLLIN)
            ready = {number for number, _ in poll.poll(None if timeout_s is None else int(timeout_s * 1000))}
            for pidfd in ready & self._all.keys():
                del self._all[pidfd]
                os.close(pidfd)
            if timeout_s is not None or (server is not None and server.fileno() in ready):
                return


def _user_of(client: socket.socket) -> int:
    """Who has connected: the effective user at that time."""
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def _bind(address: str, access: Access) -> socket.socket:
    """The socket, at no instant open to more than it shall be."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(address).st_mode):
                raise TorporError(f"service socket {address}: there is something else", hint="--address says where")
            os.unlink(address)
        server.bind(address)
        if access.group >= 0:
            os.lchown(address, -1, access.group)
        if access.mode != 0o600:
            # Ours by now, in a directory where nobody else can rename it (or the socket is anybody's in any case).
            os.chmod(address, access.mode)
        server.listen(_BACKLOG)
    except (OSError, TorporError) as error:
        server.close()
        if isinstance(error, TorporError):
            raise
        raise TorporError(f"service socket {address}: {error.strerror}") from None
    finally:
        os.umask(mask)
    return server


def _turn_away(client: socket.socket, reason: str) -> None:
    """What it has asked by now is thrown away: unread, it would have the answer lost (ECONNRESET)."""
    client.setblocking(False)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RD)
        while client.recv(1):
            pass
    channel = Channel(client.detach())
    refuse(channel, reason)
    channel.close()


def _let_kernel_reap() -> None:
    """Workers, and, where we are the first process of a container, what they have left to us; also who has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _employ(fd: int, user: int, server: socket.socket, workers: Workers, serve: Callable[[int], bool]) -> None:
    """A worker for the client on *fd*, which is counted from its first instant to its last.

    Until it is, it is ours to reap: the pid of one that the kernel has reaped may be somebody else's by then.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        if pid := _start_worker(fd, server, workers, serve):
            workers.add(pid, user)
    finally:
        _let_kernel_reap()


def _start_worker(fd: int, server: socket.socket, workers: Workers, serve: Callable[[int], bool]) -> int:
    """Its pid; 0 where there can be none."""
    pid = 0
    try:
        with errand.deaf() as mask:
            pid = os.fork()
            if not pid:
                _work(fd, server, workers, serve, mask)
    except OSError as error:
        log.error(f"a client has to go: {error.strerror}")
    os.close(fd)
    return pid


def _work(
    fd: int, server: socket.socket, workers: Workers, serve: Callable[[int], bool], mask: Iterable[int]
) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        server.close()
        workers.forget()
        code = 0 if serve(fd) else 1
    except BaseException as error:
        log.error(f"worker: {type(error).__name__}: {error}")
    finally:
        os._exit(code)
