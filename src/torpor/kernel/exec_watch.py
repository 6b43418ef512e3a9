"""Whoever executes one of some programs waits until it has been looked at: fanotify(7) with FAN_OPEN_EXEC_PERM.

Limits
    CAP_SYS_ADMIN, and a kernel that knows permission events.  When the watch is closed, or we die, all go on.  Such a
    program must not be started by our own process, of which no thread runs until it has been (vfork holds the GIL).
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable, Sequence

from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.fcntl import AT_FDCWD

_CLOEXEC, _CLASS_CONTENT = 0x1, 0x4
_MARK_ADD, _OPEN_EXEC_PERM, _ALLOW = 0x1, 0x40000, 0x1
#: struct fanotify_event_metadata, struct fanotify_response
_EVENT, _RESPONSE = struct.Struct("=IBBHQii"), struct.Struct("=iI")


class ExecWatch(Closing):
    """Of *programs*, those that there are; KernelError where there is no such thing."""

    def __init__(self, programs: Sequence[str]) -> None:
        flags = _CLASS_CONTENT | _CLOEXEC
        self._fd = OwnedFd(syscall("fanotify_init", nr.fanotify_init, flags, os.O_RDONLY | os.O_CLOEXEC))
        try:
            for program in programs:
                path = bytearray(os.fsencode(program) + b"\0")
                syscall(
                    "fanotify_mark", nr.fanotify_mark, self._fd.fileno(), _MARK_ADD, _OPEN_EXEC_PERM, AT_FDCWD,
                    address_of(path),
                )  # fmt: skip
        except BaseException:
            self._fd.close()
            raise

    def fileno(self) -> int:
        """A descriptor that can be polled for reading: somebody waits to be looked at."""
        return self._fd.fileno()

    def look(self, timeout_ms: int, then: Callable[[Pid], None]) -> None:
        """Call *then* with the pid of each who waits, within that time; whatever comes of it, he goes on."""
        poll = select.poll()
        poll.register(self._fd.fileno(), select.POLLIN)
        if not poll.poll(timeout_ms):
            return
        data = os.read(self._fd.fileno(), 4096)
        at = 0
        while at + _EVENT.size <= len(data):
            length, _, _, _, mask, fd, pid = _EVENT.unpack_from(data, at)
            at += max(length, _EVENT.size)
            try:
                if mask & _OPEN_EXEC_PERM:
                    then(Pid(pid))
            finally:
                if fd >= 0:
                    os.write(self._fd.fileno(), _RESPONSE.pack(fd, _ALLOW))
                    os.close(fd)

    def close(self) -> None:
        self._fd.close()
