"""What ethtool(8) has set of interfaces is so again: features, queues in use, what the driver of tun keeps."""

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import TypeVar

import pytest

from harness.network import ask, unshared
from harness.skips import missing
from harness.workload import Workload
from torpor.base.errors import KernelError
from torpor.base.fds import OwnedFd
from torpor.kernel import genetlink, netlink
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.ethtool_netlink import (
    ETHTOOL_A_CHANNELS_RX_COUNT,
    ETHTOOL_A_CHANNELS_TX_COUNT,
    ETHTOOL_A_COALESCE_RX_MAX_FRAMES,
    ETHTOOL_A_DEBUG_MSGMASK,
    ETHTOOL_A_LINKMODES_SPEED,
    ETHTOOL_MSG_CHANNELS_GET,
    ETHTOOL_MSG_CHANNELS_SET,
    ETHTOOL_MSG_COALESCE_SET,
    ETHTOOL_MSG_DEBUG_SET,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_LINKMODES_SET,
)
from torpor.kernel.uapi.if_arp import ARPHRD_NONE
from torpor.kernel.uapi.if_tun import (
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_TSO_ECN,
    TUNGETVNETLE,
    TUNSETLINK,
    TUNSETOFFLOAD,
    TUNSETVNETLE,
)
from torpor.kernel.uapi.netlink import NETLINK_GENERIC
from torpor.objects.ns.net import ethtool, tun

pytestmark = pytest.mark.root
T = TypeVar("T")

_SETUP = (
    "ip link add v0 numtxqueues 3 numrxqueues 2 type veth peer name v1; ip link set v0 up; ip link set v1 up"
    "; ip link add br0 type bridge; ip link set v1 master br0; ip tuntap add tap0 mode tap"
)
_one, _two = struct.pack("=I", 1), struct.pack("=I", 2)
#: The bits of messages of drivers, of which "drv" alone.
_DRV = netlink.attribute(1, b"") + netlink.nested(3, netlink.nested(1, netlink.text(2, "drv")))
#: As "ethtool -K v0 gro on tso off" and its like; what it has a name for and a kernel has not is not asked for.
_CHANGES: ethtool.Settings = {
    (ETHTOOL_MSG_FEATURES_SET, "v0"): {"rx-gro": b"\1", "tx-tcp-segmentation": b""},
    (ETHTOOL_MSG_FEATURES_SET, "v1"): {"tx-checksum-ip-generic": b""},
    (ETHTOOL_MSG_FEATURES_SET, "br0"): {"tx-tcp-segmentation": b""},
    (ETHTOOL_MSG_FEATURES_SET, "lo"): {"tx-udp-segmentation": b""},
    (ETHTOOL_MSG_FEATURES_SET, "tap0"): {"rx-gro": b"", "tx-nocache-copy": b"\1"},
    (ETHTOOL_MSG_CHANNELS_SET, "v0"): {ETHTOOL_A_CHANNELS_RX_COUNT: _one, ETHTOOL_A_CHANNELS_TX_COUNT: _two},
    (ETHTOOL_MSG_COALESCE_SET, "tap0"): {ETHTOOL_A_COALESCE_RX_MAX_FRAMES: _two},
    (ETHTOOL_MSG_DEBUG_SET, "tap0"): {ETHTOOL_A_DEBUG_MSGMASK: _DRV},
    (ETHTOOL_MSG_LINKMODES_SET, "tap0"): {ETHTOOL_A_LINKMODES_SPEED: struct.pack("=I", 1000)},
}


def _needs_ethtool() -> None:
    with Netlink(NETLINK_GENERIC) as connection:
        if "ethtool" not in genetlink.families(connection):
            missing("ethtool's family of generic netlink in the kernel")


def _change() -> None:
    there = ethtool.read()
    for (number, name), settings in _CHANGES.items():
        known = there.get((number, name), {})
        ethtool.change(number, name, {key: value for key, value in settings.items() if key in known})


@pytest.mark.parametrize("offload", [TUN_F_CSUM, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN])
def test_what_a_program_behind_tun_takes(offload: int) -> None:
    """Offloads, which only features tell, the byte order of headers, and what kind of link it is."""
    _needs_ethtool()

    def attach() -> int:
        fd = os.open(tun.PATH, os.O_RDWR | os.O_CLOEXEC)
        tun.attach(fd, "tap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        return fd

    setup = "ip tuntap add tap0 mode tap vnet_hdr"
    with Workload.start("counter", prefix=unshared(setup)) as workload:
        workload.wait_ready()
        new = _in(workload.pid, lambda: ethtool.active("tap0"))
        with OwnedFd(_in(workload.pid, attach)) as fd:
            fcntl.ioctl(fd.fileno(), TUNSETOFFLOAD, offload)
            fcntl.ioctl(fd.fileno(), TUNSETVNETLE, struct.pack("i", 1))
            fcntl.ioctl(fd.fileno(), TUNSETLINK, ARPHRD_NONE)
        before = _in(workload.pid, lambda: ethtool.active("tap0"))
        assert "tx-checksum-ip-generic" in before - new
        workload.dump()
        workload.restore()
        assert _in(workload.pid, lambda: ethtool.active("tap0")) == before
        with OwnedFd(_in(workload.pid, attach)) as fd:
            assert fcntl.ioctl(fd.fileno(), TUNGETVNETLE, bytes(4)) == struct.pack("i", 1)
        assert "link/none" in ask(workload.pid, "ip", "link", "show", "tap0")
        workload.expect_pass()


def test_settings() -> None:
    _needs_ethtool()
    with Workload.start("counter", prefix=unshared(_SETUP)) as workload:
        workload.wait_ready()
        new = _read(workload.pid)
        _in(workload.pid, _change)
        before = _read(workload.pid)
        # Not every kernel lets all of them be changed.
        wanted = {key for key, settings in _CHANGES.items() if settings.keys() & new.get(key, {}).keys()}
        assert len(wanted) > 4
        assert {key for key in before if before[key] != new[key]} == wanted
        workload.dump()
        workload.restore()
        assert _read(workload.pid) == before
        workload.expect_pass()


def test_what_no_interface_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux 5.10 answers."""
    _needs_ethtool()
    dump = Netlink.dump

    def answer(connection: Netlink, kind: int, request: bytes) -> list[bytes]:
        if request[0] == ETHTOOL_MSG_CHANNELS_GET:
            raise KernelError(f"netlink dump {kind}", errno.EOPNOTSUPP)
        return dump(connection, kind, request)

    monkeypatch.setattr(Netlink, "dump", answer)
    found = {number for number, _ in ethtool.read()}
    assert ETHTOOL_MSG_FEATURES_SET in found and ETHTOOL_MSG_CHANNELS_SET not in found


def _read(pid: int) -> ethtool.Settings:
    return _in(pid, ethtool.read)


def _in(pid: int, action: Callable[[], T]) -> T:
    with OwnedFd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        return inside(namespace.fileno(), CLONE_NEWNET, action)
