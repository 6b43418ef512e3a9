"""`torpor reboot --kernel`: a job goes into another kernel by kexec, without firmware and boot loader."""

import re
from pathlib import Path

from vm.disks import KEXEC
from vm.kernels import by_name, kernel_files, version
from vm.machine import LabMachine

#: Each starts the next one.
ORDER = ("6.1", "6.12")

#: The same script under both kernels: the disk says which time it is.
_SCRIPT = """
set -e
ticks() {{
    until [ -s /srv/w/job ]; do sleep 0.2; done
    before=$(cat /srv/w/job)
    while [ "$(cat /srv/w/job)" = "$before" ]; do sleep 0.2; done
    echo "job ticks from $before to $(cat /srv/w/job) under $(uname -r)"
}}
if [ -e /srv/w/asleep ]; then
    echo "asleep at $(cat /srv/w/asleep)"
    journalctl --no-pager -o cat -u torpor-save.service -u torpor-restore.service
    ticks
    exit
fi
rm -f /usr/local/sbin/criu /usr/local/sbin/torpor
/opt/torpor/bin/torpor setup --survive-reboot
mkdir -p /srv/w
gcc -O2 -static -o /srv/ticker tests/vm/guest/ticker.c
torpor run -d --name job -- /srv/ticker /srv/w/job
torpor run -d --name deaf -- sleep 100000
torpor survive job
ticks
torpor reboot --kernel {release} --dry-run
cp /srv/w/job /srv/w/asleep
torpor reboot --kernel {release}
exec sleep infinity
"""
#: What may be between the last look at the ticker and its checkpoint, which a busy machine makes long.
_BETWEEN_S = 300


def test_a_job_goes_into_another_kernel_by_kexec(installed: dict[str, Path]) -> None:
    first, second = (by_name(name) for name in ORDER)
    release = version(second)
    files = kernel_files(second)
    boot = {f"root/boot/vmlinuz-{release}": files / "vmlinuz", f"root/boot/initrd.img-{release}": files / "initrd"}
    with LabMachine(KEXEC, n_megabytes=1536) as machine:
        result = machine.run(
            first, _SCRIPT.format(release=release), payload={**installed, **boot}, systemd=True, timeout_s=600
        )
        print(result.output)
    assert result.status == 0, result.output
    assert "job:job: sleeps" in result.output and "job:job: runs again" in result.output, result.output
    # Not marked, and without a handler for SIGTERM: systemd would wait for it.
    assert "job:deaf: ended" in result.output, result.output
    asleep = re.search(r"asleep at +(\d+)", result.output)
    found = re.search(r"job ticks from +(\d+) to +(\d+) under (.*)", result.output)
    assert asleep is not None and found is not None and found[3] == release, result.output
    assert int(asleep[1]) <= int(found[1]) < int(found[2]) and int(found[1]) < int(asleep[1]) + _BETWEEN_S
