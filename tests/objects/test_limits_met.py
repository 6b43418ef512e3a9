"""Limits that are used up, or below what is in use, of root's and of somebody else's processes."""

import pytest

from harness import engine
from harness.flavours import Flavour, workload_test
from harness.workload import Workload

#: The program's directories are made somebody else's, and so it is.
_OTHER = 'chmod 0777 "${3%/*}" "$5"; exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"'

test_limits_met = workload_test("limits_met")
test_of_another_user = workload_test(
    "limits_met", prefix=("sh", "-c", _OTHER, "sh"), flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING)
)


@pytest.mark.root
def test_a_hard_limit_is_refused_by_name() -> None:
    """Before anything is frozen; where we may raise it, it is carried."""
    with Workload.start("limits_met", ("hard",)) as workload:
        workload.wait_ready()
        try:
            workload.dump()
        except engine.EngineError as error:
            assert "hard limit RLIMIT_" in error.log
        else:
            workload.restore()
        workload.expect_pass()
