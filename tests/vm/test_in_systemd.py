"""systemd as init and control groups version 2, as distributions have them: Podman's limits, a service of systemd."""

from pathlib import Path

from vm.disks import SYSTEMD
from vm.kernels import Kernel
from vm.machine import LabMachine

#: Of 64 MB the program keeps 56 and is itself some kilobytes.
_LIMITED = """
set -e
mkdir -p /srv/image/bin /srv/w
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
tar -C /srv/image -c . | podman import -q - localhost/programs
podman info --format 'manager {{.Host.CgroupManager}} {{.Host.CgroupsVersion}}'
podman run -d --name limited --memory 64m --cpus 0.5 --pids-limit 50 -v /srv/w:/w localhost/programs \\
    /bin/ticker /w/ticks 56
limits() {
    group=/sys/fs/cgroup$(podman inspect --format '{{.State.CgroupPath}}' limited)
    [ $(cat $group/memory.current) -gt 57000000 ] && echo "$1 full"
    for file in memory.max memory.swap.max cpu.max cpu.weight pids.max; do echo "$1 $file $(cat $group/$file)"; done
}
ticks() {
    was=$(cat /srv/w/ticks)
    until [ -s /srv/w/ticks ] && [ "$(cat /srv/w/ticks)" != "$was" ]; do sleep 0.5; done
}
touch /srv/w/ticks
ticks
limits 0
for round in 1 2; do
    podman container checkpoint --export /srv/limited.tar.gz limited
    podman rm limited
    podman container restore --import /srv/limited.tar.gz || {
        find /var/lib/containers -name restore.log -exec tail {} +
        exit 1
    }
    ticks
    limits $round
done
"""

_SERVICE = """
set -e
systemd-run --unit=counting /bin/sh -c 'n=0; while :; do n=$((n+1)); echo "count $n"; sleep 1; done'
said() { journalctl -o cat -u counting | sed -n 's/^count //p' | tail -n 1; }
until [ "$(said)" -ge 2 ] 2>/dev/null; do sleep 0.5; done
mkdir /srv/images
criu dump -D /srv/images -t $(systemctl show -p MainPID --value counting) -o dump.log -v4 || {
    tail -n 20 /srv/images/dump.log; exit 1
}
before=$(journalctl -o cat | sed -n 's/^count //p' | tail -n 1)
criu restore -d -D /srv/images -o restore.log -v4 || { tail -n 20 /srv/images/restore.log; exit 1; }
until [ "$(journalctl -o cat | sed -n 's/^count //p' | tail -n 1)" -gt $before ]; do sleep 0.5; done
journalctl -o cat | sed -n 's/^count //p' | tr '\\n' ' '
echo
journalctl -o verbose -n 1 -t sh | grep -E 'SYSLOG_IDENTIFIER|UNIT='
"""


def test_limits_are_equal_after_a_restore(kernel: Kernel, installed: dict[str, Path]) -> None:
    with LabMachine(SYSTEMD, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, _LIMITED, payload=installed, systemd=True, timeout_s=600)
    assert result.status == 0, result.output
    lines = result.output.splitlines()
    assert "manager systemd v2" in lines
    limits = [[line[2:] for line in lines if line.startswith(f"{when} ")] for when in (0, 1, 2)]
    assert "memory.max 67108864" in limits[0] and "cpu.max 50000 100000" in limits[0] and "full" in limits[0]
    assert limits[0] == limits[1] == limits[2]


def test_a_service_goes_on_writing_to_the_journal(kernel: Kernel, installed: dict[str, Path]) -> None:
    with LabMachine(SYSTEMD, n_processors=2) as machine:
        result = machine.run(kernel, _SERVICE, payload=installed, systemd=True, timeout_s=300)
    assert result.status == 0, result.output
    counts = next(line for line in result.output.splitlines() if line.startswith("1 2 ")).split()
    assert counts == [str(number) for number in range(1, len(counts) + 1)], result.output
    assert "SYSLOG_IDENTIFIER=sh" in result.output
