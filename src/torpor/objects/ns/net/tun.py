"""tun and tap devices, as interfaces; their descriptors are :mod:`torpor.objects.files.tunfile`.

Kernel view
    IFLA_TUN_*; sizes and byte order only through a descriptor that is attached; what packets it takes as they are
    (TUNSETOFFLOAD), by the features of the interface that are on.
Image
    ``tun_link_entry``.
Restore
    TUNSETIFINDEX and TUNSETIFF on /dev/net/tun, by a thread in the namespace.  The device is made to persist until the
    first descriptor of the tree is attached, which undoes that where it was not so.
Limits
    A tap device with a packet filter is refused: the filter cannot be read.  Lost without a word is what nothing tells
    of: eBPF programs (TUNSETSTEERINGEBPF, TUNSETFILTEREBPF), the filter of TUNSETTXFILTER, TUNSETCARRIER.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from torpor.base import log
from torpor.base.errors import RefusedError, RestoreError
from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.kernel import netlink
from torpor.kernel.rtnetlink import Link
from torpor.kernel.uapi.if_arp import ARPHRD_ETHER, ARPHRD_NONE
from torpor.kernel.uapi.if_tun import (
    IFF_DETACH_QUEUE,
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_PERSIST,
    IFF_TAP,
    IFF_TUN,
    IFF_VNET_HDR,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_TSO_ECN,
    TUN_F_USO4,
    TUN_F_USO6,
    TUNGETFILTER,
    TUNGETIFF,
    TUNGETSNDBUF,
    TUNGETVNETHDRSZ,
    TUNGETVNETLE,
    TUNSETGROUP,
    TUNSETIFF,
    TUNSETIFINDEX,
    TUNSETLINK,
    TUNSETOFFLOAD,
    TUNSETOWNER,
    TUNSETPERSIST,
    TUNSETSNDBUF,
    TUNSETVNETHDRSZ,
    TUNSETVNETLE,
)
from torpor.objects.ns.net import ethtool
from torpor.objects.session import DumpContext

PATH = "/dev/net/tun"

_IFREQ = "16sH22x"

#: What is the device's, and not one descriptor's.
_DEVICE_FLAGS = 0xFFFF & ~0x200 & ~IFF_DETACH_QUEUE

_OWNER, _GROUP, _TYPE, _PI, _VNET_HDR, _PERSIST, _MULTI_QUEUE = range(1, 8)
_NOBODY = -1
#: Features of an interface, as ethtool names them, and what TUNSETOFFLOAD sets them by (drivers/net/tun.c).
_OFFLOADS = {
    "tx-checksum-ip-generic": TUN_F_CSUM,
    "tx-tcp-segmentation": TUN_F_TSO4,
    "tx-tcp6-segmentation": TUN_F_TSO6,
    "tx-tcp-ecn-segmentation": TUN_F_TSO_ECN,
    "tx-udp-segmentation": TUN_F_USO4 | TUN_F_USO6,
}


@dataclass(frozen=True, slots=True)
class Attached:
    """What a descriptor says of its device."""

    flags: int
    sndbuf: int
    vnethdr: int
    vnet_le: bool


class Devices:
    """What was seen of tun devices through descriptors of the tree, by the namespace's id and the name."""

    def __init__(self, context: DumpContext) -> None:
        self.seen: dict[tuple[int, str], Attached] = {}
        #: Those that are in the images.
        self.carried: set[tuple[int, str]] = set()


def device_of(fd: int) -> tuple[str, int] | None:
    """Name and IFF_* of the device to which a descriptor is attached; None for one that is not."""
    request = bytearray(struct.pack(_IFREQ, b"", 0))
    try:
        fcntl.ioctl(fd, TUNGETIFF, request)
    except OSError as error:
        if error.errno == errno.EBADFD:
            return None
        raise
    name, flags = struct.unpack_from("16sH", request)
    return name.split(b"\0")[0].decode(errors="surrogateescape"), flags


def look(fd: int, name: str, flags: int) -> Attached:
    """What an attached descriptor says; RefusedError for a tap device with a filter."""
    if flags & IFF_TAP and struct.unpack_from("H", _get(fd, TUNGETFILTER, 16))[0]:
        raise RefusedError(f"the tap device {name} has a packet filter", hint="detach it (TUNDETACHFILTER)")
    sndbuf, vnethdr, le = (_number(fd, request) for request in (TUNGETSNDBUF, TUNGETVNETHDRSZ, TUNGETVNETLE))
    return Attached(flags & _DEVICE_FLAGS, sndbuf, vnethdr, bool(le))


def _number(fd: int, request: int) -> int:
    return int.from_bytes(_get(fd, request, 4), "little")


def _get(fd: int, request: int, size: int) -> bytes:
    buffer = bytearray(size)
    fcntl.ioctl(fd, request, buffer)
    return bytes(buffer)


def attach(fd: int, name: str, flags: int) -> None:
    """TUNSETIFF: attach to the device of that name, which is made if there is none."""
    fcntl.ioctl(fd, TUNSETIFF, struct.pack(_IFREQ, name.encode(errors="surrogateescape"), flags & 0xFFFF))


def fill(entry: m.net_device_entry, link: Link, devices: Devices, ident: int) -> None:
    """Fill in ``entry.tun`` with what *link* and a descriptor tell of the device, which *devices* notes as carried."""
    devices.carried.add((ident, link.name))
    attributes = netlink.parse_attributes(link.data)
    attached = devices.seen.get((ident, link.name)) or _look_briefly(link, _flags(attributes))
    tun = entry.tun
    tun.flags, tun.sndbuf, tun.vnethdr = attached.flags, attached.sndbuf, attached.vnethdr
    if link.type != (ARPHRD_ETHER if tun.flags & IFF_TAP else ARPHRD_NONE):
        tun.torpor_link_type = link.type
    if attached.vnet_le:
        tun.torpor_vnet_le = True
    if offload := _offload(ethtool.active(link.name)):
        tun.torpor_offload = offload
    tun.owner = int.from_bytes(attributes.get(_OWNER, b"\xff\xff\xff\xff"), "little", signed=True)
    tun.group = int.from_bytes(attributes.get(_GROUP, b"\xff\xff\xff\xff"), "little", signed=True)


def _offload(features: set[str]) -> int:
    """What TUNSETOFFLOAD was given: none of these features is on before."""
    return sum(bits for name, bits in _OFFLOADS.items() if name in features)


def _flags(attributes: dict[int, bytes]) -> int:
    def is_set(number: int) -> bool:
        return any(attributes.get(number, b""))

    flags = attributes.get(_TYPE, b"\1")[0] & (IFF_TUN | IFF_TAP)
    for number, flag in ((_VNET_HDR, IFF_VNET_HDR), (_PERSIST, IFF_PERSIST), (_MULTI_QUEUE, IFF_MULTI_QUEUE)):
        if is_set(number):
            flags |= flag
    return flags if is_set(_PI) else flags | IFF_NO_PI


def _look_briefly(link: Link, flags: int) -> Attached:
    """Of one without a descriptor in the tree; we are in its namespace."""
    if not flags & IFF_PERSIST:
        raise RefusedError(
            f"the tun device {link.name} is held by a process outside of the tree",
            hint="checkpoint that process as well, or end it",
        )
    fd = os.open(PATH, os.O_RDWR | os.O_CLOEXEC)
    try:
        # IFF_NO_PI doubles as IFF_NOFILTER: the kernel would look for the filter in our memory.
        attach(fd, link.name, flags)
        seen = look(fd, link.name, flags)
    except OSError as error:
        raise RefusedError(
            f"the tun device {link.name} cannot be looked at: {error.strerror}",
            hint="is it held by a process outside of the tree?",
        ) from error
    finally:
        os.close(fd)
    return Attached(flags, seen.sndbuf, seen.vnethdr, seen.vnet_le)


def make(entry: m.net_device_entry) -> None:
    """The device, persistent for now, in the calling thread's namespace.  RestoreError where the kernel says no."""
    if not entry.HasField("tun"):
        raise RestoreError(f"the images do not say what the tun device {entry.name} is like")
    tun = entry.tun
    try:
        fd = os.open(PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"{PATH}: {error.strerror}", hint="tun devices need it") from error
    try:
        fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("i", entry.ifindex))
        attach(fd, entry.name, tun.flags)
        for request, number in ((TUNSETOWNER, tun.owner), (TUNSETGROUP, tun.group)):
            if number != _NOBODY:
                fcntl.ioctl(fd, request, number & 0xFFFFFFFF)
        fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("I", tun.sndbuf))
        if tun.vnethdr:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("I", tun.vnethdr))
        if tun.HasField("torpor_link_type"):
            fcntl.ioctl(fd, TUNSETLINK, tun.torpor_link_type & 0xFFFF)
        if tun.torpor_vnet_le:
            fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
        if tun.torpor_offload:
            _set_offload(fd, entry.name, tun.torpor_offload)
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    except OSError as error:
        raise RestoreError(f"the tun device {entry.name} cannot be made: {error.strerror}") from error
    finally:
        os.close(fd)


def _set_offload(fd: int, name: str, flags: int) -> None:
    try:
        fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
    except OSError as error:
        # A kernel before 6.2 may not have all of them.
        log.warn(f"the tun device {name} hands on packets as if nothing were offloaded: {error.strerror}")
