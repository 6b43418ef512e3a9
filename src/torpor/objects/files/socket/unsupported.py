"""Sockets of families that cannot be carried: they are named and refused."""

from __future__ import annotations

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.objects.files.model import FileKind, OpenFile
from torpor.objects.files.socket.make import family_of
from torpor.objects.session import DumpContext, RestoreContext

_NAMES = {
    4: "IPX", 5: "AppleTalk", 9: "X.25", 15: "AF_KEY (IPsec keys)", 21: "RDS", 23: "IrDA", 24: "PPPoX",
    26: "LLC", 27: "InfiniBand", 28: "MPLS", 29: "CAN bus", 30: "TIPC", 31: "Bluetooth", 33: "RxRPC", 35: "Phonet",
    38: "kernel crypto (AF_ALG)", 39: "NFC", 40: "vsock", 41: "KCM", 42: "Qualcomm IPC", 43: "SMC", 44: "XDP",
    45: "MCTP",
}  # fmt: skip


def matches(file: OpenFile) -> bool:
    """Every socket; to be tried last."""
    return family_of(file) >= 0


def dump(file: OpenFile, entry: m.file_entry, context: DumpContext) -> None:
    """Refuse it by its family's name."""
    check(file, context)


def check(file: OpenFile, context: DumpContext) -> None:
    """The same, ahead of time."""
    family = family_of(file)
    raise file.refuse(f"a socket of family {family} ({_NAMES.get(family, 'unknown')})", hint="close it and try again")


def restore(entry: m.file_entry, context: RestoreContext) -> int:
    """No image has one."""
    raise RestoreError(f"file {entry.id} is a socket of a family that cannot be restored")


KIND = FileKind("socket of another family", m.fd_types.UND, matches, dump, restore, check=check)
