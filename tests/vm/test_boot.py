"""One machine, in the ordinary suite: 6.1 boots, and what users do first works there (all kernels: test_in_uses.py)."""

from pathlib import Path

import pytest

from vm.disks import BARE
from vm.machine import LabMachine

USES = ("counter", "shell", "connection", "job")


# Beside others a machine may be slower by whatever they do, and no time limit would mean anything.
@pytest.mark.alone
def test_what_users_do_first(installed: dict[str, Path]) -> None:
    (kernel,) = BARE.kernels
    script = f"USES='{' '.join(USES)}' bash tests/vm/uses.sh torpor=criu"
    with LabMachine(BARE) as machine:
        result = machine.run(kernel, script, payload=installed)
    assert result.output.splitlines() == [f"{name} torpor ok" for name in USES], result.console
