"""Programs that systemd runs (`units.sh`): limits, delegated groups, the freezer, watchdogs, sockets, containers."""

from pathlib import Path

import pytest

from vm import payload
from vm.disks import SYSTEMD, TRIXIE, Image
from vm.kernels import Kernel
from vm.machine import LabMachine

CASES = ("properties", "delegated", "freezer", "frozen", "watchdog", "socket", "generated")


@pytest.mark.parametrize(
    ("image", "cases"),
    [pytest.param(SYSTEMD, CASES, id="bookworm"), pytest.param(TRIXIE, ("rootless",), id="trixie")],
)
def test_under_systemd(kernel: Kernel, image: Image, cases: tuple[str, ...]) -> None:
    given: dict[str, Path] = {**payload.environment(image.suite), **payload.tests()}
    # By default a dump gives up after ten seconds in which not all has stopped: few on a busy emulator.
    script = f"mkdir -p /etc/criu; echo 'timeout 120' >/etc/criu/default.conf\nbash tests/vm/units.sh {' '.join(cases)}"
    with LabMachine(image, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, script, payload=given, systemd=True, timeout_s=600)
    print(result.output)
    assert result.output.splitlines() == [f"{case} ok" for case in cases], result.output
