"""What no image has of a network namespace is refused by name, and the program runs on; without it, all is well."""

import os
import re
import socket
import struct
import subprocess
import sys

import pytest

from harness.engine import EngineError
from harness.machine import need_commands
from harness.network import ask, unshared
from harness.skips import missing
from harness.workload import Workload
from torpor.base.errors import KernelError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine.dump import preflight
from torpor.engine.options import DumpOptions
from torpor.kernel import genetlink, netlink
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import AF_BRIDGE, IFLA_AF_SPEC, IFLA_IFNAME, IFLA_MASTER, Link, ifinfomsg
from torpor.kernel.sockets import Socket
from torpor.kernel.syscall import address_of
from torpor.kernel.uapi.bpf import BPF_FLOW_DISSECTOR, BPF_TCX_INGRESS
from torpor.kernel.uapi.ebtables import EBT_SO_GET_INIT_ENTRIES, EBT_SO_GET_INIT_INFO
from torpor.kernel.uapi.netlink import NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL
from torpor.objects.ns.net import ebtables, uncarried

pytestmark = pytest.mark.root

_PORT = (
    "ip link add br0 type bridge mcast_snooping 1; ip link add v0 type veth peer name v1; ip link set v0 master br0"
    "; ip link set br0 up; ip link set v0 up; ip link set v1 up"
)
_VXLAN = "ip link add vx0 type vxlan external vnifilter dstport 4790; ip link set vx0 up"
_IPSET_CREATE, _IPSET_DESTROY = 6 << 8 | 2, 6 << 8 | 3


def _refused_until(workload: Workload, what: str, *remedy: str) -> None:
    findings = preflight.examine(Pid(workload.pid), DumpOptions())
    assert what in str(findings.problems)
    with pytest.raises(EngineError, match=what):
        workload.dump()
    if remedy:
        ask(workload.pid, *remedy)


def _expect_restored(workload: Workload) -> None:
    workload.dump()
    workload.restore()
    workload.expect_pass()


@pytest.mark.parametrize(
    ("family", "setup", "what", "remedy"),
    [
        ("", f"{_PORT}; bridge mdb add dev br0 port v0 grp 239.1.1.1 permanent", "permanent multicast groups",
         "bridge mdb del dev br0 port v0 grp 239.1.1.1"),
        ("", f"{_VXLAN}; bridge vni add dev vx0 vni 100", "identifiers that vxlan lets pass",
         "bridge vni delete dev vx0 vni 100"),
        ("", "ip xfrm policy setdefault fwd block", "defaults of IPsec that block",
         "ip xfrm policy setdefault in accept fwd accept out accept"),
        ("SEG6", "ip sr tunsrc set 2001:db8::9", "source addresses of segment routing", "ip sr tunsrc set ::"),
        ("IOAM6", "ip ioam namespace add 7", "namespaces of IOAM", "ip ioam namespace del 7"),
        ("IOAM6", "ip ioam schema add 7 abcd", "schemas of IOAM", "ip ioam schema del 7"),
    ],
)  # fmt: skip
def test_refused(family: str, setup: str, what: str, remedy: str) -> None:
    with Netlink(NETLINK_GENERIC) as connection:
        if family and family not in genetlink.families(connection):
            missing(f"{family} in the kernel")
    with Workload.start("counter", prefix=unshared(setup)) as workload:
        workload.wait_ready()
        _refused_until(workload, what, *remedy.split())
        _expect_restored(workload)


def test_sets_of_ipset() -> None:
    if not os.path.exists("/sys/module/ip_set"):
        missing("ipset in the kernel")
    words = bytes([2, 0, 0, 0]) + netlink.attribute(1, b"\6") + netlink.text(2, "people")
    kind = netlink.text(3, "hash:ip") + netlink.attribute(4, b"\0") + netlink.attribute(5, b"\2") + netlink.nested(7)
    with Workload.start("counter", prefix=unshared("true")) as workload:
        workload.wait_ready()

        _tell(workload, _IPSET_CREATE, words + kind)
        _refused_until(workload, r"sets of ipset")
        _tell(workload, _IPSET_DESTROY, words)
        _expect_restored(workload)


def _tell(workload: Workload, number: int, payload: bytes, protocol: int = NETLINK_NETFILTER) -> None:
    def speak() -> None:
        with Netlink(protocol) as connection:
            connection.request(number, payload, NLM_F_CREATE | NLM_F_EXCL)

    with OwnedFd(os.open(f"/proc/{workload.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        inside(namespace.fileno(), CLONE_NEWNET, speak)


_TIMEOUT = (
    netlink.text(1, "things") + netlink.attribute(2, b"\0\2") + netlink.attribute(3, b"\x11")
    + netlink.nested(4, netlink.attribute(1, bytes([0, 0, 0, 9])))
)  # fmt: skip


@pytest.mark.parametrize(
    ("subsystem", "removes", "words", "what"),
    [
        (7, 3, netlink.text(1, "things"), r"counters of nfacct \(things\)"),
        (
            8,
            2,
            _TIMEOUT,
            r"timeouts of connections \(things",
        ),
    ],
)
def test_what_rules_of_iptables_name(subsystem: int, removes: int, words: bytes, what: str) -> None:
    nobody = bytes([0, 0, 0, 0])
    with Workload.start("counter", prefix=unshared("true")) as workload:
        workload.wait_ready()
        try:
            _tell(workload, subsystem << 8, nobody + words)
        except KernelError as error:
            missing(f"objects of nfnetlink's subsystem {subsystem} ({error})")
        assert re.search(what, str(preflight.examine(Pid(workload.pid), DumpOptions()).problems))
        with pytest.raises(EngineError, match=what):
            workload.dump()
        _tell(workload, subsystem << 8 | removes, nobody + netlink.text(1, "things"))
        _expect_restored(workload)


_RTM_NEWMDB = 84


def test_groups_of_vxlan() -> None:
    """Which the ip-bridge(8) of many systems cannot set yet."""
    group = struct.pack("=IBBH16sHxx", 77, 1, 0, 0, socket.inet_aton("239.1.1.1"), 0x0008)
    ends = netlink.nested(2, netlink.attribute(5, socket.inet_aton("10.0.0.1")))
    payload = struct.pack("=BxxxI", AF_BRIDGE, 77) + netlink.attribute(1, group) + ends
    setup = "ip link add vx0 index 77 type vxlan id 7 dstport 4790"
    with Workload.start("counter", prefix=unshared(setup)) as workload:
        workload.wait_ready()
        try:
            _tell(workload, _RTM_NEWMDB, payload, NETLINK_ROUTE)
        except KernelError as error:
            missing(f"groups of vxlan in the kernel ({error})")
        _refused_until(workload, "permanent multicast groups of bridges or vxlan", "ip", "link", "del", "vx0")
        _expect_restored(workload)


#: Loads a program that lets all pass, and attaches it: type of program, place, interface; or takes it away again.
_ATTACH = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, *words):
    attr = ctypes.create_string_buffer(struct.pack(*words))
    result = libc.syscall(int(sys.argv[1]), command, attr, len(attr) - 1)
    if result < 0:
        sys.exit(f"bpf({command}): {ctypes.get_errno()}")
    return result
kind, place, target, is_there = map(int, sys.argv[2:6])
code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
law = ctypes.create_string_buffer(b"GPL")
if is_there:
    fd = bpf(5, "<2I2Q2IQ2I16s2I", kind, 2, ctypes.addressof(code), ctypes.addressof(law), 0, 0, 0, 0, 0, b"", 0, 0)
    bpf(8, "<6IQ", target, fd, place, 0, 0, 0, 0)
else:
    bpf(9, "<6IQ", target, 0, place, 0, 0, 0, 0)
"""


@pytest.mark.parametrize(
    ("kind", "place", "target", "what"),
    [(3, BPF_TCX_INGRESS, 1, r"at interfaces \(tcx: lo\)"), (22, BPF_FLOW_DISSECTOR, 0, "that dissect flows")],
)
def test_programs_of_bpf(kind: int, place: int, target: int, what: str) -> None:
    words = [sys.executable, "-c", _ATTACH, str(nr.bpf), str(kind), str(place), str(target)]
    with Workload.start("counter", prefix=unshared("true")) as workload:
        workload.wait_ready()
        try:
            ask(workload.pid, *words, "1")
        except subprocess.CalledProcessError:
            missing(f"programs of bpf(2) at the place {place}")
        assert re.search(what, str(preflight.examine(Pid(workload.pid), DumpOptions()).problems))
        with pytest.raises(EngineError, match=what):
            workload.dump()
        if target:  # the other would have to be named by its number
            ask(workload.pid, *words, "0")
            _expect_restored(workload)


def test_lists_of_recent_are_told() -> None:
    need_commands({"iptables-legacy": "iptables"})
    seen = "iptables-legacy -A INPUT -m recent --name seen --set; echo +10.1.1.1 > /proc/net/xt_recent/seen"
    with Workload.start("counter", prefix=unshared(f"{seen}; iptables-legacy -A INPUT -m recent --set")) as workload:
        workload.wait_ready()
        findings = preflight.examine(Pid(workload.pid), DumpOptions())
        assert "recently, by iptables, become empty (seen)" in str(findings.losses)
        _expect_restored(workload)


def test_nexthop_objects_are_told() -> None:
    with Workload.start("counter", prefix=unshared("ip link set lo up; ip nexthop add id 8 blackhole")) as workload:
        workload.wait_ready()
        findings = preflight.examine(Pid(workload.pid), DumpOptions())
        assert "nexthop objects are left out (1)" in str(findings.losses)
        _expect_restored(workload)


def test_a_table_of_proc_has_more_than_its_head() -> None:
    # As Linux 6.1 shows them.
    services = [
        "IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn",
    ]  # fmt: skip
    assert not uncarried.has_lines(services, 3)
    assert uncarried.has_lines([*services, "TCP  C0000201:0050 rr "], 3)
    assert not uncarried.has_lines([], 3)


def _bridge(default: int) -> Link:
    words = {1: b"bridge\0", 2: netlink.attribute(39, default.to_bytes(2, "little"))}
    return Link(3, 1, 0, b"", {IFLA_IFNAME: b"br0\0"}, words)


def _answer(index: int, name: str, *vlans: tuple[int, int]) -> bytes:
    words = [netlink.attribute(2, flags.to_bytes(2, "little") + vlan.to_bytes(2, "little")) for vlan, flags in vlans]
    message = ifinfomsg.pack(AF_BRIDGE, 1, index, 0, 0) + netlink.text(IFLA_IFNAME, name)
    return message + netlink.number(IFLA_MASTER, 3) + netlink.nested(IFLA_AF_SPEC, *words)


def test_vlans_that_a_bridge_does_not_give_by_itself() -> None:
    usual, more = _answer(4, "v0", (1, 6)), _answer(5, "v1", (1, 6), (10, 0))
    assert uncarried.other_vlans([_bridge(1)], [usual]) == []
    assert uncarried.other_vlans([_bridge(1)], [usual, more]) == ["v1"]
    assert uncarried.other_vlans([_bridge(1)], [usual, _answer(4, "v0")]) == []
    assert uncarried.other_vlans([_bridge(1)], [_answer(4, "v0", (1, 0))]) == ["v0"]
    assert uncarried.other_vlans([_bridge(0)], [_answer(4, "v0")]) == []
    # A kernel without says nothing of them; what is no bridge's is nobody's business.
    assert uncarried.other_vlans([Link(3, 1, 0, b"", {}, {1: b"bridge\0"})], [_answer(4, "v0")]) == []
    assert uncarried.other_vlans([], [more]) == []


def test_groups_that_are_there_for_good() -> None:
    def group(state: int) -> bytes:
        info = (4).to_bytes(4, "little") + bytes([state, 0, 0, 0]) + bytes(20)
        return bytes(8) + netlink.nested(1, netlink.nested(1, netlink.attribute(1, info)))

    assert [uncarried.permanent_groups(group(state)) for state in (0, 1)] == [0, 1]
    assert uncarried.permanent_groups(bytes(8)) == 0


def test_tables_of_the_ebtables_of_old_are_told() -> None:
    """Where the kernel has them, which is asked for by what is loaded: there one begins to drop what it let pass."""
    subprocess.run(["modprobe", "--quiet", "ebtable_filter"], check=False)
    with Workload.start("counter", prefix=unshared("true")) as workload:
        workload.wait_ready()
        with OwnedFd(os.open(f"/proc/{workload.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            assert inside(namespace.fileno(), CLONE_NEWNET, ebtables.tables) == []
            has_one = inside(namespace.fileno(), CLONE_NEWNET, _drop_what_is_forwarded)
        losses = str(preflight.examine(Pid(workload.pid), DumpOptions()).losses)
        assert ("tables of ebtables are left out (filter)" in losses) == has_one
        _expect_restored(workload)


def _drop_what_is_forwarded() -> bool:
    """Whether there is a table for that in the thread's namespace."""
    layout = struct.Struct("=32s3I4x6Q I4xQQ")
    try:
        with Socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as connection:
            request = bytearray(layout.pack(b"filter", *[0] * 12))
            ebtables._get(connection, EBT_SO_GET_INIT_INFO, request, layout.size)
            _, hooks, _, size, *_ = layout.unpack(request)
            chains = bytearray(size)
            words = [b"filter", hooks, 0, size, *[0] * 8, address_of(chains)]
            ebtables._get(connection, EBT_SO_GET_INIT_ENTRIES, bytearray(layout.pack(*words)), layout.size + size)
            length = size // hooks.bit_count()
            struct.pack_into("=i", chains, length + _POLICY_OFFSET, _EBT_DROP)
            places = [hook for hook in range(6) if hooks >> hook & 1]
            for at, hook in enumerate(places):
                words[4 + hook] = address_of(chains) + at * length
    except OSError:
        return False
    with Socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as connection:
        # The length counts what only the pointers lead to.
        connection.setsockopt(socket.IPPROTO_IP, _EBT_SO_SET_ENTRIES, layout.pack(*words) + bytes(size))
    return True


_EBT_SO_SET_ENTRIES, _EBT_DROP, _POLICY_OFFSET = 128, -2, 40
