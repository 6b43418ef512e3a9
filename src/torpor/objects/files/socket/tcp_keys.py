"""TCP sockets that sign their segments (TCP_MD5SIG, TCP_AO): the keys cannot be had, so they are refused.

Kernel view
    sock_diag tells of MD5 keys (INET_DIAG_MD5SIG, to whoever has CAP_NET_ADMIN); TCP_AO_INFO whether there are others.
Image
    None: the dump is refused.
Restore
    None.
Limits
    Keys of a socket that neither listens nor is connected are lost: the tables tell of one that is bound (6.8), but not
    of its keys, and setsockopt(2) finds only the key of an address that one knows.
"""

from __future__ import annotations

import _socket as socket

from torpor.kernel.sock_diag import read_inet
from torpor.kernel.sockets import Borrowed
from torpor.objects.files.model import OpenFile
from torpor.objects.session import DumpContext, DumpStage

_AO_INFO, _AO_INFO_BYTES = 40, 24


class Signed:
    """What the checks before the freeze have met.  The tables are read once for all of them."""

    def __init__(self, context: DumpContext) -> None:
        self._met: list[OpenFile] = []
        context.at(DumpStage.KNOWN, self._check)

    def add(self, file: OpenFile, family: int) -> None:
        """A TCP socket that listens or is connected; RefusedError if it has keys of the newer kind."""
        with Borrowed(file.fd, family) as connection:
            try:
                connection.getsockopt(socket.IPPROTO_TCP, _AO_INFO, _AO_INFO_BYTES)
            except OSError:
                pass  # it has none, or this kernel
            else:
                _refuse(file, "TCP-AO")
        self._met.append(file)

    def _check(self) -> None:
        signed = {
            inode
            for family in (socket.AF_INET, socket.AF_INET6)
            for inode, each in read_inet(family, socket.IPPROTO_TCP, with_keys=True).items()
            if each.is_signed
        }
        for file in self._met:
            if file.stat.st_ino in signed:
                _refuse(file, "TCP MD5")


def _refuse(file: OpenFile, kind: str) -> None:
    raise file.refuse(
        f"a TCP socket that signs what it sends ({kind}), whose keys the kernel does not give away",
        hint="end its sessions for the checkpoint, and have the program begin them again",
    )
