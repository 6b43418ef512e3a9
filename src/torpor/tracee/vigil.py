"""Staying beside a tree that is left stopped, until it is known what becomes of it: it goes on, or it is killed.

Nobody tells a stranger that a process is continued, so it is looked at, often; packets that are held back do not mind a
moment more.  Another dump of the same tree relieves us: it finds us by a name that tells the root.
"""

from __future__ import annotations

import _socket as socket
import os
import select
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.ids import Pid
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.sockets import Socket, is_one_of_us

_LOOK_EVERY_MS, _LOOK_MS_EACH = 50, 1
#: A process that is on its way from one stop into another is seen to run for an instant.
_N_LOOKS = 2
_PATIENCE_S = 10.0


def keep(watched: Sequence[tuple[Pid, int]]) -> bool:
    """Wait until all of *watched* (pids and pidfds, the root first) have ended: True; or until one runs: False.

    False also when somebody else takes over, who waits until we have ended.
    """
    left = {fd: pid for pid, fd in watched}
    door = _open_door(watched[0][0])
    poller = select.poll()
    for fd in left:
        poller.register(fd, select.POLLIN)
    if door is not None:
        poller.register(door.fileno(), select.POLLIN)
    n_looks = 0
    while left:
        for fd, _ in poller.poll(_LOOK_EVERY_MS + _LOOK_MS_EACH * len(left)):
            if fd in left:
                poller.unregister(fd)
                del left[fd]
            elif door is not None and _is_relieved(door):
                return False
        n_looks = n_looks + 1 if any(_runs(pid) for pid in left.values()) else 0
        if n_looks == _N_LOOKS:
            return False
    return True


def relieve(pid: Pid) -> None:
    """Whoever stays beside the stopped tree of *pid* undoes what it has to, and has ended when this returns."""
    with Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        caller.settimeout(_PATIENCE_S)
        with suppress(OSError):
            caller.connect(_name(pid))
            if is_one_of_us(caller):
                caller.recv(1)


def _open_door(pid: Pid) -> Socket | None:
    door = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        door.bind(_name(pid))
        door.listen(1)
    except OSError:
        return None
    return door


def _is_relieved(door: Socket) -> bool:
    try:
        caller = door.accept_one()
    except OSError:
        return False
    if not is_one_of_us(caller):
        caller.close()
        return False
    # It stays open until we have ended, which is what the caller waits for.
    os.dup(caller.fileno())
    return True


def _name(pid: Pid) -> bytes:
    try:
        started = read_stat(pid).start_time
    except OSError:
        started = 0
    return f"\0torpor-beside-{pid}-{started}".encode()


def _runs(pid: Pid) -> bool:
    """Whether it runs, and not for a tracer."""
    try:
        return read_stat(pid).state in "RSI" and not read_status(pid).tracer
    except OSError:
        return False
