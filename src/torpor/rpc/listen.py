"""The listening socket of ``criu service``: a worker process for each client."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.typed import NoReturn
from torpor.kernel import signal

_BACKLOG = 16


def listen(address: str, *, daemon: bool, pid_file: str, status_fd: int, serve: Callable[[int], bool]) -> NoReturn:
    """Bind *address* and *serve* every connection (given by its descriptor) in a process of its own, for ever.

    As a *daemon* we go on in a child, and the caller's process ends once the socket listens.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with suppress(FileNotFoundError):
            os.unlink(address)
        server.bind(address)
        # As with CRIU, whoever can reach the socket may ask; what the client may not do fails where it is done.
        os.chmod(address, 0o666)
        server.listen(_BACKLOG)
    except OSError as error:
        raise TorporError(f"service socket {address}: {error.strerror}") from None
    if daemon:
        _to_background()
    if pid_file:
        with open(pid_file, "w", encoding="ascii") as stream:
            stream.write(str(os.getpid()))
    if status_fd >= 0:
        os.write(status_fd, b"\0")
        os.close(status_fd)
    # The kernel reaps the workers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    log.info(f"The service socket is bound to {address}")
    while True:
        client, _ = server.accept()
        _start_worker(client.detach(), server, serve)


def _start_worker(fd: int, server: socket.socket, serve: Callable[[int], bool]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        log.error(f"a client has to go: {error.strerror}")
        os.close(fd)
        return
    if pid:
        os.close(fd)
        return
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.close()
        code = 0 if serve(fd) else 1
    except BaseException as error:
        log.error(f"worker: {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _to_background() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
