"""Queueing disciplines of a network namespace's interfaces, their classes, and what is left out of them."""

import re
import shutil

import pytest

from harness.network import ask, unshared
from harness.skips import missing
from harness.workload import Workload
from torpor.engine.dump import preflight
from torpor.engine.options import DumpOptions
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.stores.memory import MemStore
from torpor.kernel import netlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.rtnetlink import tcmsg
from torpor.kernel.uapi.pkt_sched import TC_H_ROOT
from torpor.kernel.uapi.rtnetlink import RTM_NEWQDISC, TCA_KIND
from torpor.objects.ns.net import disciplines, raw

pytestmark = pytest.mark.root

#: Two ends of a veth pair; one of them with all that is known.
_SETUP = """
ip link set lo up
ip link add name d0 index 20 type veth peer name d1 index 21
ip link set d0 up
ip link set d1 up
""".strip().replace("\n", "; ")
#: A tree of classes that share a rate, with a bucket below one of them and a plain queue in that.
_CLASSES = """
tc qdisc add dev d0 handle 1: root htb default 10
tc class add dev d0 parent 1: classid 1:1 htb rate 5mbit
tc class add dev d0 parent 1:1 classid 1:10 htb rate 1mbit ceil 2mbit prio 3
tc class add dev d0 parent 1:1 classid 1:20 htb rate 3mbit
tc qdisc add dev d0 parent 1:20 handle 20: tbf rate 1mbit burst 10k latency 50ms
tc qdisc add dev d0 parent 20:1 handle 30: pfifo limit 77
""".strip().replace("\n", "; ")
#: What one interface can have; some kernels have not all.
_PLAIN = {
    "pfifo": "root handle 8: pfifo limit 9",
    "bfifo": "root handle 8: bfifo limit 30000",
    "pfifo_head_drop": "root handle 8: pfifo_head_drop limit 9",
    "noqueue": "root handle 8: noqueue",
    "tbf": "root handle 8: tbf rate 20gbit burst 100k limit 90k peakrate 30gbit mtu 2000",
    "clsact": "clsact",
}


def shown(pid: int) -> list[str]:
    """By tc, in no order, without what packets change."""
    lines: list[str] = []
    for what in ("qdisc", "class"):
        for name in ("d0", "d1"):
            lines += ask(pid, "tc", "-d", what, "show", "dev", name).splitlines()
    return sorted(re.sub(r"(direct_packets_stat|refcnt) \d+ ?", "", line) for line in lines)


def carried(setup: str) -> tuple[list[str], list[str], str]:
    """What there is before and after, and the dump's log."""
    if shutil.which("tc") is None:
        missing("the command tc")
    with Workload.start("counter", prefix=unshared(f"{_SETUP}; {setup}")) as workload:
        workload.wait_ready()
        before = shown(workload.pid)
        workload.dump()
        workload.restore()
        after = shown(workload.pid)
        workload.expect_pass()
        return before, after, (workload.images / "dump.log").read_text()


def test_classes_and_what_hangs_below_them() -> None:
    before, after, log = carried(_CLASSES)
    assert len(before) >= 8
    assert after == before
    assert "left out" not in log


@pytest.mark.parametrize("kind", _PLAIN)
def test_each_kind(kind: str) -> None:
    before, after, log = carried(f"tc qdisc add dev d0 {_PLAIN[kind]}")
    assert any(line.startswith(f"qdisc {kind} ") for line in before)
    assert after == before
    assert "left out" not in log


@pytest.mark.parametrize("words", ["overhead 20", "linklayer atm mpu 64 overhead 20", "mpu 100 mtu 9000 tsize 128"])
def test_sizes_that_are_counted_otherwise(words: str) -> None:
    before, after, _ = carried(f"tc qdisc add dev d0 root handle 8: stab {words} tbf rate 1mbit burst 10k latency 50ms")
    assert after == before
    assert any("overhead 20" in line or "tsize 128" in line for line in before)


def test_what_is_left_out_is_said() -> None:
    filtered = "tc filter add dev d0 parent 1: protocol ip u32 match ip dport 80 0xffff flowid 1:20"
    before, after, log = carried(f"{_CLASSES}; {filtered}")
    assert after == before
    assert "the filters of the queueing discipline htb of d0 are left out" in log


def test_what_would_be_left_out_is_told_by_a_check() -> None:
    if shutil.which("tc") is None:
        missing("the command tc")
    filtered = "tc filter add dev d0 parent 1: protocol ip u32 match ip dport 80 0xffff flowid 1:20"
    with Workload.start("counter", prefix=unshared(f"{_SETUP}; {_CLASSES}; {filtered}")) as workload:
        workload.wait_ready()
        found = preflight.examine(workload.pid, DumpOptions())
        assert found.losses == ("the filters of the queueing discipline htb of d0 are left out",)
        workload.expect_pass()


def test_what_the_kernel_attaches_by_itself_is_its_own() -> None:
    before, after, _ = carried("true")
    assert after == before


def test_a_kind_that_is_not_carried_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an image names would be looked for as a module of the kernel's."""
    store = MemStore()
    payload = tcmsg.pack(0, 1, 0x80000, TC_H_ROOT, 0) + netlink.attribute(TCA_KIND, b"evil\0")
    raw.store(store, kinds.TORPOR_QDISC, 7, [(RTM_NEWQDISC, payload)])
    monkeypatch.setattr(Netlink, "request", lambda *words: pytest.fail("asked for"))
    with Netlink() as connection, pytest.raises(ImageError, match="evil"):
        disciplines.restore(store, 7, connection)
