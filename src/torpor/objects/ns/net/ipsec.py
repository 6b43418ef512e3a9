"""IPsec of a network namespace: policies that say which packets are to be encrypted, and the keys for that.

Kernel view
    XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA; XFRM_MSG_GETDEFAULT, whether packets pass that no policy is for.
    ``/proc/net/netlink`` tells whether the kernel has that part at all, of which the first socket would load it.
Image
    None: the dump is refused, for without them packets would go in the clear.
Restore
    None.
Limits
    A policy of a single socket's (IP_XFRM_POLICY) in another namespace than the tree's own is not seen.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from torpor.base.errors import KernelError, RefusedError
from torpor.base.ids import Pid
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.netlink import NETLINK_XFRM
from torpor.kernel.uapi.xfrm import (
    XFRM_MSG_GETDEFAULT,
    XFRM_MSG_GETPOLICY,
    XFRM_MSG_GETSA,
    XFRM_USERPOLICY_BLOCK,
)

#: In, forwarded, out.
_userpolicy_default = struct.Struct("=BBB")
_ASKED = ((XFRM_MSG_GETPOLICY, "policies", "policy"), (XFRM_MSG_GETSA, "states", "state"))


def check(pid: Pid) -> None:
    """RefusedError where the namespace of the calling thread, which is that of *pid*, has any."""
    for what, remedy in found():
        raise RefusedError(
            f"the network namespace of pid {pid} has {what}, which are not carried",
            hint=f"take them down for the checkpoint ({remedy}), and set them up after the restore",
        )


def found() -> Iterator[tuple[str, str]]:
    """(what, what takes them away) of what the thread's namespace has."""
    if not _is_there():
        return
    with Netlink(NETLINK_XFRM) as connection:
        for message, what, word in _ASKED:
            if connection.dump(message, b""):
                yield f"{what} of IPsec", f"ip xfrm {word} flush"
        if _blocks(connection):
            yield "defaults of IPsec that block", "ip xfrm policy setdefault in accept fwd accept out accept"


def _blocks(connection: Netlink) -> bool:
    try:
        answers = connection.ask(XFRM_MSG_GETDEFAULT, _userpolicy_default.pack(0, 0, 0))
    except KernelError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            return False  # a kernel without, or one that keeps it from us, who cannot have set it either
        raise
    return any(XFRM_USERPOLICY_BLOCK in _userpolicy_default.unpack_from(answer) for answer in answers)


def _is_there() -> bool:
    with open("/proc/thread-self/net/netlink", encoding="ascii") as table:
        next(table)
        return any(int(line.split()[1]) == NETLINK_XFRM for line in table)
