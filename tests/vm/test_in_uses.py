"""What users do first works on each kernel: programs by `criu`, a job by `torpor`, a container with limits by Podman.

$TORPOR_VM_PEER is the root of another CRIU (`/usr/sbin/criu` with its libraries), which does the same beside ours.
"""

import os
from pathlib import Path

import pytest

from vm.disks import SYSTEMD
from vm.kernels import Kernel
from vm.machine import LabMachine

USES = ("sleep", "counter", "threads", "shell", "python", "listener", "connection", "job", "container")
_LIB = "usr/lib/x86_64-linux-gnu"
_PEER = f"""#!/bin/sh
exec /srv/peer/{_LIB}/ld-linux-x86-64.so.2 --library-path /srv/peer/{_LIB} /srv/peer/usr/sbin/criu "$@"
"""


@pytest.fixture(name="peer")
def _peer(tmp_path: Path) -> dict[str, Path]:
    """The payload with another engine, if one is named."""
    place = os.environ.get("TORPOR_VM_PEER")
    if not place:
        return {}
    command = tmp_path / "criu"
    command.write_text(_PEER)
    command.chmod(0o755)
    parts = {f"root/srv/peer/{name}": Path(place, name) for name in (_LIB, "usr/sbin/criu")}
    return {**parts, "root/srv/peer/criu": command}


def test_what_users_do_first(kernel: Kernel, installed: dict[str, Path], peer: dict[str, Path]) -> None:
    engines = "torpor=criu" + (" peer=/srv/peer/criu" if peer else "")
    # With two processors 7.2 was seen to die in its scheduler, in code that it had just rewritten: an emulator's fault.
    with LabMachine(SYSTEMD, n_megabytes=2048) as machine:
        result = machine.run(kernel, f"bash tests/vm/uses.sh {engines}", payload={**installed, **peer}, timeout_s=900)
    print(result.output)
    said = result.output.splitlines()
    assert [line for line in said if " torpor" in line] == [f"{name} torpor ok" for name in USES], result.output
