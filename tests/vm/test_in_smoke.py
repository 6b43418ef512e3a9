"""The lab itself: a machine boots, finds torpor installed, carries a process, and leaves nothing here."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from harness.events import ProcessWatch, time_limit_s
from vm.disks import PLAIN
from vm.kernels import Kernel, version
from vm.machine import LabMachine


def test_a_process_is_carried(kernel: Kernel, installed: dict[str, Path]) -> None:
    script = """
    uname -r
    /opt/torpor/bin/python -m pytest -q -p no:cacheprovider tests/objects/test_counter.py -k 'control or host'
    """
    with LabMachine(PLAIN) as machine:
        result = machine.run(kernel, script, payload=installed)
    assert result.status == 0, result.output
    assert result.output.splitlines()[0] == version(kernel)
    assert "3 passed" in result.output


def test_a_job_that_hangs_is_a_result(kernel: Kernel) -> None:
    with LabMachine(PLAIN) as machine:
        result = machine.run(kernel, "echo begun; exec sleep 1000", timeout_s=3)
    assert (result.status, result.output) == (124, "begun\n")


def test_no_machine_is_left_when_its_host_is_killed(kernel: Kernel) -> None:
    text = f"""
        from vm.disks import PLAIN
        from vm.kernels import by_name
        from vm.machine import LabMachine

        with LabMachine(PLAIN) as machine:
            machine.run(by_name("{kernel.name}"), "sleep 1000", timeout_s=1000, follow=True)
    """
    line = [sys.executable, "-c", textwrap.dedent(text)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        try:
            next(line for line in host.stdout if "job begins" in line)
            children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
            qemu = next(pid for pid in children if "qemu" in Path(f"/proc/{pid}/comm").read_text())
            with ProcessWatch(int(qemu)) as watch:
                host.send_signal(signal.SIGKILL)
                assert watch.wait_ended(time_limit_s(10))
        finally:
            host.kill()
