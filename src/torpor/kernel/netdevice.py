"""Network interfaces by ioctl(2), see netdevice(7): what the calling thread's network namespace needs at least."""

from __future__ import annotations

import fcntl
import struct

from torpor.kernel.uapi.if_h import IFF_UP

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFREQ = "16sH22x"


def names() -> list[str]:
    """The interfaces there are."""
    from _socket import if_nameindex

    return [name for _, name in if_nameindex()]


def loopback_up() -> None:
    """Bring ``lo`` up, which has its addresses from then on."""
    from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket

    control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        request = bytearray(struct.pack(_IFREQ, b"lo", 0))
        fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        if not flags & IFF_UP:
            fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | IFF_UP))
    finally:
        control.close()
