"""Resource limits: of other processes, read from /proc and set from outside; of ourselves, that of descriptors."""

from __future__ import annotations

import os
import struct
from functools import lru_cache

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import isolated
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import read_status
from torpor.kernel.syscall import address_of, syscall

DATA, AS = 2, 9
INFINITY = (1 << 64) - 1
N_LIMITS = 16
#: What precedes the values in a line of ``/proc/PID/limits`` (fs/proc/base.c).
_NAME_WIDTH = 26
_RLIMIT = struct.Struct("<QQ")
_CAP_SYS_RESOURCE = 24


def read_limits(pid: int) -> tuple[tuple[int, int], ...]:
    """Soft and hard limits of a process by their numbers, from its ``/proc/PID/limits``.

    Everybody may read that; prlimit(2) on another user's process needs CAP_SYS_RESOURCE.
    """
    return _parse(read_small(f"/proc/{pid}/limits"))


@lru_cache(maxsize=32)
def _parse(text: str) -> tuple[tuple[int, int], ...]:
    """Most processes of a tree have the same."""
    rows = (line[_NAME_WIDTH:].split() for line in text.splitlines()[1 : N_LIMITS + 1])
    return tuple((_value(soft), _value(hard)) for soft, hard, *_ in rows)


def _value(word: str) -> int:
    return INFINITY if word == "unlimited" else int(word)


def may_raise() -> bool:
    """Whether we may raise hard limits."""
    return bool(read_status(Pid(os.getpid())).cap_effective >> _CAP_SYS_RESOURCE & 1)


def raise_descriptor_limit() -> None:
    """As many descriptors as this process may have; who is born of it inherits that."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_limit(pid: Pid, number: int, soft: int, hard: int, uid: int, gid: int) -> None:
    """prlimit(2) on a process all of whose user and group ids are *uid* and *gid*; OSError.

    Who may not do so as what we are may as that user, within the hard limit.
    """
    content = bytearray(_RLIMIT.pack(soft, hard))

    def work() -> None:
        if uid != os.geteuid() and not may_raise():
            # Of this thread only: the C library's would be of all.
            syscall("setresgid", nr.setresgid, gid, gid, gid)
            syscall("setresuid", nr.setresuid, uid, uid, uid)
        syscall("prlimit", nr.prlimit64, pid, number, address_of(content), 0)

    isolated(work)
