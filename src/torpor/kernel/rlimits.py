"""Resource limits: of other processes, read from /proc and set from outside; of ourselves, that of descriptors."""

from __future__ import annotations

import os
import struct

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import isolated
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import read_status
from torpor.kernel.syscall import address_of, syscall

DATA, AS = 2, 9
INFINITY = (1 << 64) - 1
_LINES = {"Max data size": DATA, "Max address space": AS}
_RLIMIT = struct.Struct("<QQ")
_CAP_SYS_RESOURCE = 24


def read_limits(pid: Pid) -> dict[int, tuple[int, int]]:
    """Soft and hard limit of DATA and AS, from ``/proc/PID/limits``."""
    found = {}
    for line in read_small(f"/proc/{pid}/limits").splitlines():
        for head, number in _LINES.items():
            if line.startswith(head):
                soft, hard = (INFINITY if word == "unlimited" else int(word) for word in line[len(head) :].split()[:2])
                found[number] = (soft, hard)
    return found


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
