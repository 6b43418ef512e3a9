"""The listening socket of ``criu service``: a worker process for each client.

Only its owner may connect, unless told otherwise; who others are, and what they may, is in :mod:`torpor.rpc.peer`.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from torpor.base import log
from torpor.base.background import say_ready, to_background, write_pid
from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.base.typed import NoReturn
from torpor.kernel import errand, signal

_BACKLOG = 16


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
    # The kernel reaps the workers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    log.info(f"The service socket is bound to {address}")
    while True:
        client, _ = server.accept()
        _start_worker(client.detach(), server, serve)


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


def _start_worker(fd: int, server: socket.socket, serve: Callable[[int], bool]) -> None:
    try:
        with errand.deaf() as mask:
            if not os.fork():
                _work(fd, server, serve, mask)
    except OSError as error:
        log.error(f"a client has to go: {error.strerror}")
    os.close(fd)


def _work(fd: int, server: socket.socket, serve: Callable[[int], bool], mask: Iterable[int]) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        server.close()
        code = 0 if serve(fd) else 1
    except BaseException as error:
        log.error(f"worker: {type(error).__name__}: {error}")
    finally:
        os._exit(code)
