"""Commands that go on in the background when they are ready to work."""

from __future__ import annotations

import os

from torpor.base.errors import TorporError
from torpor.base.fds import OwnedFd, open_output, put_new


def write_pid(path: str, pid: int) -> None:
    """Write the file that ``--pidfile`` names: as a whole, or into the one that is there.  TorporError."""
    text = str(pid).encode()
    try:
        new = put_new(path, text, 0o644)
        with new or OwnedFd(open_output(path, mode=0o644)) as fd:
            if new is None:
                os.write(fd.fileno(), text)
    except OSError as error:
        raise TorporError(f"pid file {path}: {error.strerror}") from None


def to_background(pid_file: str) -> None:
    """Go on in a child, in a session of its own and without a terminal; the caller's process ends well here.

    With *pid_file* that gets the child's pid first.
    """
    ready, told = os.pipe()
    if pid := os.fork():
        code = 1
        try:
            os.close(ready)
            if pid_file:
                write_pid(pid_file, pid)
            os.write(told, b"\0")
            code = 0
        except TorporError as error:
            from torpor.base import log

            log.error(error.describe())
            code = error.exit_code
        finally:
            os._exit(code)
    os.close(told)
    # One whose pid cannot be told is nobody's.
    if not os.read(ready, 1):
        os._exit(1)
    os.close(ready)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def say_ready(fd: int) -> None:
    """What ``--status-fd`` is told, once; -1: nobody wants to know.  TorporError."""
    if fd >= 0:
        try:
            os.write(fd, b"\0")
            os.close(fd)
        except OSError as error:
            raise TorporError(f"--status-fd {fd}: {error.strerror}") from None
