"""Sockets without :mod:`socket`, whose enumerations take as long to import as a small dump takes altogether."""

from __future__ import annotations

import _socket
import os
import struct

from torpor.base.typed import Self
from torpor.kernel.arch import nr
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.sockios import SIOCGSKNS

SO_DOMAIN = 39
SO_NETNS_COOKIE = 71
_UCRED = struct.Struct("3i")


class Socket(_socket.socket):
    """A socket that is closed at the end of a ``with``."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def getsockopt_in(self, level: int, option: int, question: bytearray) -> bytes:
        """An option whose answer depends on what stands in the buffer."""
        length = bytearray(struct.pack("I", len(question)))
        address, length_at = address_of(question), address_of(length)
        syscall("getsockopt", nr.getsockopt, self.fileno(), level, option, address, length_at)
        return bytes(question[: struct.unpack("I", length)[0]])

    def accept_one(self) -> Socket:
        """The next connection (close-on-exec)."""
        fd, _ = self._accept()  # type: ignore[attr-defined]
        return Socket(self.family, self.type, self.proto, fileno=fd)


class Borrowed:
    """A descriptor that somebody else owns, as a socket object for the length of a ``with``."""

    __slots__ = ("_socket",)

    def __init__(self, fd: int, family: int = _socket.AF_UNIX) -> None:
        # Python asks for family and type unless told; only addresses depend on the family.
        self._socket = Socket(family, _socket.SOCK_STREAM, 0, fileno=fd)

    def __enter__(self) -> Socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()


class _Lent(Socket):
    """Leaves its descriptor to whom it is."""

    __slots__ = ()
    __del__ = _socket.socket.detach


_lent: dict[int, _Lent] = {}


def asked(fd: int) -> Socket:
    """A descriptor that somebody else owns, to be asked for options and for nothing else.

    One object for each number, whatever sockets have that one after the other: to make one takes longer than to ask.
    OSError, here or when it is asked, for what is no socket.
    """
    found = _lent.get(fd)
    if found is None:
        found = _lent[fd] = _Lent(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=fd)
    return found


def is_one_of_us(other: Socket) -> bool:
    """Whether whoever is at the other end is root, or the user who we are."""
    _, uid, _ = _UCRED.unpack(other.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size))
    return uid in (0, os.geteuid())


def pair(kind: int) -> tuple[Socket, Socket]:
    """Two connected unix sockets (close-on-exec)."""
    near, far = _socket.socketpair(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC, 0)
    return _own(near, kind), _own(far, kind)


def _own(end: _socket.socket, kind: int) -> Socket:
    return Socket(_socket.AF_UNIX, kind, 0, fileno=end.detach())


def get_int(fd: int, level: int, option: int) -> int:
    """An integer option; OSError where the socket does not have it."""
    return asked(fd).getsockopt(level, option)


def net_namespace_of(fd: int) -> tuple[str, int]:
    """What tells the network namespace of a socket from others: SO_NETNS_COOKIE (5.14), or the namespace's inode."""
    try:
        cookie = asked(fd).getsockopt(_socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError:
        return ("inode", _namespace_inode(fd))
    return ("cookie", int.from_bytes(cookie, "little"))


def _namespace_inode(fd: int) -> int:
    import fcntl

    namespace = fcntl.ioctl(fd, SIOCGSKNS)
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)
