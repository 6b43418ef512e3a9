"""NUMA policies of single mappings, on a machine that has several nodes or is said to."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.skips import missing
from harness.workload import Workload
from torpor.kernel import mount
from torpor.kernel.namespaces import CLONE_NEWNS, unshare

pytestmark = pytest.mark.root

_ONLINE = "/sys/devices/system/node/online"


def _restored(said: Path) -> None:
    """By a thread that has a mount namespace: two nodes are what it, and who it starts, sees there."""
    unshare(CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    mount.mount(str(said), _ONLINE, None, mount.MS_BIND)
    with Workload.start("placed") as workload:
        workload.wait_ready()
        workload.dump()
        workload.restore()
        workload.expect_pass()


def test_policies_of_single_mappings_are_there_again(tmp_path: Path) -> None:
    if not Path(_ONLINE).exists():
        missing("CONFIG_NUMA")
    said = tmp_path / "online"
    said.write_text("0-1\n")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_restored, said).result()
