from pathlib import Path

import pytest

from harness.engine import EngineError
from harness.flavours import Flavour, workload_test
from harness.workload import Workload

test_linked_file = workload_test("linked_file", dump_options=["--link-remap"])

test_linked_file_by_its_other_name = workload_test("linked_file", ["renamed"])


@pytest.mark.root
def test_a_hidden_name_is_refused_without_the_option() -> None:
    with Workload.start("linked_file", ["hidden"], prefix=["unshare", "--mount"]) as workload:
        workload.wait_ready()
        with pytest.raises(EngineError, match="--link-remap"):
            workload.dump()
        workload.expect_pass()


@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.HOST_RUNNING])
def test_no_link_is_left(flavour: Flavour) -> None:
    with Workload.start("linked_file") as workload:
        workload.wait_ready()
        workload.dump(leave_running=flavour is Flavour.HOST_RUNNING, options=["--link-remap"])
        if flavour is Flavour.HOST:
            assert _links(workload.directory)
            workload.restore()
        assert not _links(workload.directory)
        workload.expect_pass()


def _links(directory: Path) -> list[Path]:
    return list(directory.glob("link_remap.*"))
