"""IPsec of a network namespace: policies that say which packets are to be encrypted, and the keys for that.

Kernel view
    XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA; ``/proc/net/netlink`` tells whether the kernel has that part at all, of which
    the first socket would load it.
Image
    None: the dump is refused, for without them packets would go in the clear.
Restore
    None.
Limits
    A policy of a single socket's (IP_XFRM_POLICY) in another namespace than the tree's own is not seen.
"""

from __future__ import annotations

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.netlink import NETLINK_XFRM
from torpor.kernel.uapi.xfrm import XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA

_ASKED = ((XFRM_MSG_GETPOLICY, "policies", "policy"), (XFRM_MSG_GETSA, "states", "state"))


def check(pid: Pid) -> None:
    """RefusedError where the namespace of the calling thread, which is that of *pid*, has any."""
    if not _is_there():
        return
    with Netlink(NETLINK_XFRM) as connection:
        for message, what, word in _ASKED:
            if connection.dump(message, b""):
                raise RefusedError(
                    f"the network namespace of pid {pid} has {what} of IPsec, which are not carried",
                    hint=f"take them down for the checkpoint (ip xfrm {word} flush), and set them up after the restore",
                )


def _is_there() -> bool:
    with open("/proc/thread-self/net/netlink", encoding="ascii") as table:
        next(table)
        return any(int(line.split()[1]) == NETLINK_XFRM for line in table)
