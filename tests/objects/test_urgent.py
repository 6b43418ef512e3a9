"""Urgent data (MSG_OOB) is refused while it, or its mark in TCP, waits to be read."""

import pytest

from harness.engine import EngineError
from harness.workload import Workload

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]
_TCP = ("--tcp-established",)


@pytest.mark.parametrize("arguments", [("tcp", "there"), ("tcp", "read"), ("unix", "there")], ids="-".join)
def test_it_is_refused_and_stays(arguments: tuple[str, str]) -> None:
    with Workload.start("urgent", arguments) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="urgent data"):
            workload.dump(options=_TCP)
        workload.expect_pass()


@pytest.mark.parametrize("arguments", [("tcp", "passed"), ("unix", "passed"), ("unix", "read")], ids="-".join)
def test_what_is_behind_it_is_carried(arguments: tuple[str, str]) -> None:
    with Workload.start("urgent", arguments) as workload:
        workload.wait_ready()
        workload.dump(options=_TCP)
        workload.restore(options=_TCP)
        workload.expect_pass()
