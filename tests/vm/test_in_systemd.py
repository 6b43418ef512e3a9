"""systemd as init and control groups version 2, as distributions have them: Podman's limits, a service of systemd."""

from pathlib import Path

from vm.disks import SYSTEMD
from vm.kernels import Kernel
from vm.machine import LabMachine

#: Of 64 MB the program keeps 60: whoever restored it inside of its own limits would be killed for it.
_USED_PERCENT = 90
_LIMITED = """
set -e
# By default a dump gives up after ten seconds in which not all has stopped: few on a busy emulator.
mkdir -p /etc/criu
echo 'timeout 120' >/etc/criu/runc.conf
mkdir -p /srv/image/bin /srv/w
gcc -O2 -static -o /srv/image/bin/ticker tests/vm/guest/ticker.c
tar -C /srv/image -c . | podman import -q - localhost/programs
podman info --format 'manager {{.Host.CgroupManager}} {{.Host.CgroupsVersion}}'
podman run -d --name limited --memory 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 \\
    --pids-limit 50 --device-write-bps /dev/vda:8mb -v /srv/w:/w localhost/programs /bin/ticker /w/ticks 60
limits() {
    group=/sys/fs/cgroup$(podman inspect --format '{{.State.CgroupPath}}' limited)
    echo "$1 percent $(($(cat $group/memory.current) * 100 / $(cat $group/memory.max)))"
    echo "$1 $(grep '^oom_kill ' $group/memory.events)"
    for file in memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max io.max; do
        echo "$1 $file $(cat $group/$file)"
    done
}
ticks() {
    was=$(cat /srv/w/ticks)
    until [ -s /srv/w/ticks ] && [ "$(cat /srv/w/ticks)" != "$was" ]; do sleep 0.5; done
}
touch /srv/w/ticks
ticks
limits 0
told() { find /var/lib/containers -name $1 -exec tail {} +; exit 1; }
for round in 1 2; do
    podman container checkpoint --export /srv/limited.tar.gz limited || told dump.log
    podman rm limited
    podman container restore --import /srv/limited.tar.gz || told restore.log
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
    # Before, after a restore, and after the checkpoint of what was restored.
    limits = [[line[2:] for line in lines if line.startswith(f"{when} ")] for when in (0, 1, 2)]
    used = [int(each.pop(0).removeprefix("percent ")) for each in limits]
    assert min(used) >= _USED_PERCENT, result.output
    for line in ("memory.max 67108864", "memory.low 33554432", "cpu.max 50000 100000", "pids.max 50", "oom_kill 0"):
        assert line in limits[0]
    assert "wbps=8388608" in limits[0][-1]
    assert limits[0] == limits[1] == limits[2]


def test_a_service_goes_on_writing_to_the_journal(kernel: Kernel, installed: dict[str, Path]) -> None:
    with LabMachine(SYSTEMD, n_processors=2) as machine:
        result = machine.run(kernel, _SERVICE, payload=installed, systemd=True, timeout_s=300)
    assert result.status == 0, result.output
    counts = next(line for line in result.output.splitlines() if line.startswith("1 2 ")).split()
    assert counts == [str(number) for number in range(1, len(counts) + 1)], result.output
    assert "SYSLOG_IDENTIFIER=sh" in result.output
