"""What users do first works on each kernel: programs by `criu`, a job by `torpor`, a container with limits by Podman.

With another CRIU ($TORPOR_VM_PEER) that does the same beside ours; a container is carried by ours alone.
"""

from pathlib import Path

from vm.disks import SYSTEMD
from vm.kernels import Kernel
from vm.machine import LabMachine
from vm.payload import PEER

USES = ("sleep", "counter", "threads", "shell", "python", "listener", "connection", "job", "container")


def test_what_users_do_first(kernel: Kernel, installed: dict[str, Path], peer: dict[str, Path]) -> None:
    engines = "torpor=criu" + (f" peer={PEER}" if peer else "")
    with LabMachine(SYSTEMD, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, f"bash tests/vm/uses.sh {engines}", payload={**installed, **peer}, timeout_s=900)
    print(result.output)
    said = result.output.splitlines()
    assert [line for line in said if " torpor" in line] == [f"{name} torpor ok" for name in USES], result.output
