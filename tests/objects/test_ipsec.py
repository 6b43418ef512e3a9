"""IPsec of a network namespace is refused, before the freeze: without it, packets would go in the clear."""

import pytest

from harness.engine import EngineError
from harness.network import ask, unshared
from harness.skips import missing
from harness.workload import Workload
from torpor.base.errors import KernelError
from torpor.base.ids import Pid
from torpor.engine.dump import preflight
from torpor.engine.options import DumpOptions
from torpor.kernel.netlink import Netlink
from torpor.kernel.uapi.netlink import NETLINK_XFRM
from torpor.kernel.uapi.xfrm import XFRM_MSG_GETPOLICY

pytestmark = pytest.mark.root

_POLICY = "ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out tmpl proto esp mode transport"


def test_a_policy() -> None:
    try:
        with Netlink(NETLINK_XFRM) as connection:
            connection.dump(XFRM_MSG_GETPOLICY, b"")
    except (OSError, KernelError):
        missing("IPsec in the kernel (xfrm_user)")
    with Workload.start("counter", prefix=unshared(_POLICY)) as workload:
        workload.wait_ready()
        findings = preflight.examine(Pid(workload.pid), DumpOptions())
        assert "policies of IPsec" in str(findings.problems)
        # Of a network that others make, lost is what they do not.
        workload.dump(options=["--empty-ns", "net"], leave_running=True)
        assert "make themselves: policies of IPsec" in (workload.images / "dump.log").read_text()
        with pytest.raises(EngineError, match="policies of IPsec"):
            workload.dump()
        ask(workload.pid, "ip", "xfrm", "policy", "flush")
        workload.dump()
        workload.restore()
        workload.expect_pass()
