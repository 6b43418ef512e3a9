"""Endpoints and limits of MPTCP are there again, under their numbers; with neither, there is no image."""

import pytest

from harness.network import ask, unshared
from harness.skips import missing
from harness.workload import Workload
from torpor.images import kinds
from torpor.kernel import genetlink
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.netlink import NETLINK_GENERIC
from torpor.objects.ns.net import mptcp

pytestmark = pytest.mark.root

_SETUP = (
    "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up"
    "; ip addr add 192.0.2.1/24 dev v0; ip addr add 2001:db8::1/64 dev v0 nodad"
)
_ENDPOINTS = (
    "ip mptcp limits set subflow 3 add_addr_accepted 4; ip mptcp endpoint add 192.0.2.1 id 7 dev v0 subflow backup"
    "; ip mptcp endpoint add 192.0.2.1 port 10100 signal; ip mptcp endpoint add 2001:db8::1 id 9 subflow fullmesh"
)


def _needs_mptcp() -> None:
    with Netlink(NETLINK_GENERIC) as connection:
        if "mptcp_pm" not in genetlink.families(connection):
            missing("MPTCP in the kernel")


def _shown(pid: int) -> list[str]:
    return sorted([line for what in ("limits", "endpoint") for line in ask(pid, "ip", "mptcp", what).splitlines()])


def test_endpoints_and_limits() -> None:
    _needs_mptcp()
    with Workload.start("counter", prefix=unshared(f"{_SETUP}; {_ENDPOINTS}")) as workload:
        workload.wait_ready()
        before = _shown(workload.pid)
        workload.dump()
        workload.restore()
        assert _shown(workload.pid) == before
        assert "10100" in str(before) and "fullmesh" in str(before)
        workload.expect_pass()


def test_none() -> None:
    _needs_mptcp()
    with Workload.start("counter", prefix=unshared("ip mptcp limits set subflow 2 add_addr_accepted 0")) as workload:
        workload.wait_ready()
        workload.dump()
        prefix = kinds.TORPOR_MPTCP.file_name(0).partition("0")[0]
        assert not list(workload.images.glob(f"{prefix}*"))
        workload.restore()
        workload.expect_pass()


def test_limits_are_told_apart() -> None:
    # As Linux 6.18 answers.
    answer = bytes.fromhex("06010000 0800020004000000 0800030003000000")
    assert mptcp.limits_of(answer) == (4, 3)
