"""Network interfaces by ioctl(2), see netdevice(7): what the calling thread's network namespace needs at least."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable

from torpor.base.typed import Self
from torpor.kernel.uapi.if_h import IFF_UP
from torpor.kernel.uapi.sockios import SIOCADDMULTI

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFREQ = "16sH22x"
_IFREQ_ADDRESS = "16sH14s8x"


def names() -> list[str]:
    """The interfaces there are."""
    from _socket import if_nameindex

    return [name for _, name in if_nameindex()]


def names_up() -> list[str]:
    """Those that are up, but for ``lo``."""
    with _Control() as control:
        return [name for name in names() if name != "lo" and control.flags(name) & IFF_UP]


def set_up(wanted: Iterable[str], *, up: bool = True) -> None:
    """Bring those of *wanted* that there are up, or down.  OSError."""
    there = set(names())
    with _Control() as control:
        for name in wanted:
            if name in there:
                flags = control.flags(name)
                control.set_flags(name, flags | IFF_UP if up else flags & ~IFF_UP)


def loopback_up() -> None:
    """Bring ``lo`` up, which has its addresses from then on."""
    set_up(["lo"])


def multicast() -> dict[int, list[bytes]]:
    """The link-layer multicast addresses that were given by ``add_multicast`` and ip-maddress(8), by interface."""
    try:
        with open("/proc/thread-self/net/dev_mcast", encoding="utf-8", errors="surrogateescape") as stream:
            return parse_multicast(stream.read())
    except FileNotFoundError:
        return {}


def parse_multicast(text: str) -> dict[int, list[bytes]]:
    """The same of the contents of ``/proc/net/dev_mcast``."""
    found: dict[int, list[bytes]] = {}
    for line in text.splitlines():
        # Number, name, users, whether of those one is for good, address: net/core/dev_addr_lists.c.  There is none of
        # an interface that has become of a kind without addresses (TUNSETLINK).
        index, _, _, is_given, *address = line.split()
        if address and int(is_given):
            found.setdefault(int(index), []).append(bytes.fromhex(address[0]))
    return found


def add_multicast(name: str, address: bytes) -> None:
    """Have the interface receive what is sent to a link-layer *address*.  OSError."""
    with _Control() as control:
        control.add_multicast(name, address)


class _Control:
    """A socket that interfaces are asked by."""

    def __init__(self) -> None:
        from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket

        self._socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)

    def flags(self, name: str) -> int:
        request = bytearray(struct.pack(_IFREQ, os.fsencode(name), 0))
        fcntl.ioctl(self._socket.fileno(), _SIOCGIFFLAGS, request)
        found: int = struct.unpack_from("H", request, 16)[0]
        return found

    def set_flags(self, name: str, flags: int) -> None:
        if flags != self.flags(name):
            fcntl.ioctl(self._socket.fileno(), _SIOCSIFFLAGS, struct.pack(_IFREQ, os.fsencode(name), flags))

    def add_multicast(self, name: str, address: bytes) -> None:
        request = struct.pack(_IFREQ_ADDRESS, os.fsencode(name), 0, address)
        fcntl.ioctl(self._socket.fileno(), SIOCADDMULTI, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
